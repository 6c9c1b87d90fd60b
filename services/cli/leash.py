"""Becomes another program that ends when its starter does: `python leash.py STARTER_PID COMMAND…`.

A supervisor that is killed can stop nobody, so the kernel is asked beforehand to send SIGTERM then.
It takes the starter's own hand elsewhere, between fork and exec, where Python code may deadlock;
a few milliseconds of an interpreter without site packages cost less. Outside of Linux it only
starts the program.
"""

import ctypes
import os
import signal
import sys

__all__ = ["main"]

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ties this process to its starter, then runs the command in its place."""
    starter, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        # The wish survives exec, as prctl(2) says.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != starter:
            sys.exit(1)  # It died before the wish was made.
    os.execv(command[0], command)  # noqa: S606  The command is the supervisor's own.


if __name__ == "__main__":
    main()
