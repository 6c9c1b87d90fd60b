"""Starts the simulator: `python -m services.simulator`."""

import sys


def main() -> None:
    """Runs the simulator until SIGTERM or SIGINT."""
    # Each render worker imports this module again and needs nothing of the server.
    from services.simulator.process import run_process
    from services.simulator.settings import read_settings

    run_process(read_settings(sys.argv[1:]))


if __name__ == "__main__":
    main()
