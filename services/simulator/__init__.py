"""A stand-in for Replicate: its API, its webhooks and its file host, on loopback."""
