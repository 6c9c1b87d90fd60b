"""How long a call of each method may take."""

from collections.abc import Mapping

__all__ = ["DEADLINES_S", "WATCH_S"]

WATCH_S = 3600.0
"""After this long a stream is watched anew."""

_READ_S = 2.0
_WRITE_S = 5.0
_CREATE_S = 10.0
_UPLOAD_S = 30.0
_SUMMARY_S = 10.0
_PROOF_S = 610.0
"""Longer than the service itself takes at most, so that it can say why it gave up."""
_SCAN_S = 30.0
"""Where all that is stored may have to be read."""

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
    "QuoteGeneration": _WRITE_S,
    "UploadImage": _UPLOAD_S,
    "CancelGeneration": _CREATE_S,
    "RetryGeneration": _CREATE_S,
    "DeleteGenerations": _WRITE_S,
    "GetStats": _SUMMARY_S,
    "ListParked": _READ_S,
    "ResumeGeneration": _WRITE_S,
    "ListEvents": _SCAN_S,
    "GetEvent": _READ_S,
    "ReplayEvents": _PROOF_S,
    "DropEvents": _WRITE_S,
}
"""Seconds by bare name of the method."""
