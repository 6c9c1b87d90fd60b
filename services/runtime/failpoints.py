"""Lets tests kill a process at one exact line, as a machine may that loses its power there.

`REELWORKS_FAILPOINTS` names points and the passing that kills, the first if none is given, and
perhaps another signal, as of a machine that stands still: `submit.sent=2,submit.claimed=1:STOP`. It
is obeyed only where `REELWORKS_ENVIRONMENT` is `test`, and elsewhere refused, so that nobody can
turn it against a service that people use. Unset, a point costs a look into an empty dictionary.
"""

import os
import signal

from services.runtime.settings import exit_with

__all__ = ["failpoint"]

VARIABLE = "REELWORKS_FAILPOINTS"
ENVIRONMENT = "REELWORKS_ENVIRONMENT"
ENVIRONMENT_ALLOWED = "test"


def _read(text: str) -> dict[str, tuple[int, signal.Signals]]:
    points = {}
    if text and os.environ.get(ENVIRONMENT) != ENVIRONMENT_ALLOWED:
        exit_with(f"{VARIABLE}: must be unset unless {ENVIRONMENT} is {ENVIRONMENT_ALLOWED}")
    for part in filter(None, text.split(",")):
        name, _, when = part.partition("=")
        passing, _, sent = when.partition(":")
        try:
            points[name] = (int(passing or 1), signal.Signals[f"SIG{sent or 'KILL'}"])
        except (ValueError, KeyError):
            exit_with(
                f"{VARIABLE}: must be names of points, as in submit.sent=2,create.sent=1:STOP"
            )
    return points


_passings_left = _read(os.environ.get(VARIABLE, ""))


def failpoint(name: str) -> None:
    """Kills this process, without a chance to clean up, if `name` is at its passing."""
    if name not in _passings_left:
        return
    left, sent = _passings_left[name]
    _passings_left[name] = (left - 1, sent)
    if left == 1:
        os.kill(os.getpid(), sent)
