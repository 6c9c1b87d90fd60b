"""How long a call of each method may take."""

from collections.abc import Mapping

__all__ = ["DEADLINES_S", "WATCH_S"]

WATCH_S = 3600.0
"""After this long a stream is watched anew."""

_READ_S = 2.0
_WRITE_S = 5.0
_CREATE_S = 10.0
_PROOF_S = 610.0
"""Longer than the service itself takes at most, so that it can say why it gave up."""

DEADLINES_S: Mapping[str, float] = {
    "OpenAccount": _WRITE_S,
    "GetBalance": _READ_S,
    "AddCredits": _WRITE_S,
    "Reserve": _WRITE_S,
    "Commit": _WRITE_S,
    "Refund": _WRITE_S,
    "Reimburse": _WRITE_S,
    "GetReservation": _READ_S,
    "ListReservations": _READ_S,
    "ListTransactions": _READ_S,
    "WatchBalance": WATCH_S,
    "VerifyLedger": _PROOF_S,
    "ListModels": _READ_S,
    "CreateGeneration": _CREATE_S,
    "GetGeneration": _READ_S,
    "ListGenerations": _READ_S,
    "WatchGenerations": WATCH_S,
}
"""Seconds by bare name of the method."""
