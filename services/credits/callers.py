"""Says which services may call the methods of credits; operators may call all of them."""

from services.runtime.identity import Callers

__all__ = ["CALLERS"]

_GENERATION = frozenset({"generation"})
_WEB = frozenset({"web"})
_OPERATORS: frozenset[str] = frozenset()

_SERVICE = "/reelworks.credits.v1.CreditsService"
CALLERS: Callers = {
    f"{_SERVICE}/OpenAccount": _WEB,
    f"{_SERVICE}/GetBalance": _GENERATION | _WEB,
    # Credits are made by operators, until payments arrive.
    f"{_SERVICE}/AddCredits": _OPERATORS,
    f"{_SERVICE}/Reserve": _GENERATION,
    f"{_SERVICE}/Commit": _GENERATION,
    f"{_SERVICE}/Refund": _GENERATION,
    f"{_SERVICE}/Reimburse": _OPERATORS,
    f"{_SERVICE}/GetReservation": _GENERATION,
    f"{_SERVICE}/ListReservations": _GENERATION,
    f"{_SERVICE}/ListTransactions": _WEB,
    f"{_SERVICE}/WatchBalance": _WEB,
    f"{_SERVICE}/VerifyLedger": _OPERATORS,
}
"""The roles, by method; a method without roles is for operators alone."""
