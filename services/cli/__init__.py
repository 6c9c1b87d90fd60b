"""The command line: starts the services on one machine and talks to them."""
