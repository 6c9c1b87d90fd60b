"""The faults that the stand-in can be told to make."""
