"""Says which services may call the methods of webhook; operators may call all of them."""

from services.runtime.identity import Callers

__all__ = ["CALLERS"]

_OPERATORS: frozenset[str] = frozenset()

_SERVICE = "/reelworks.webhook.v1.WebhookService"
CALLERS: Callers = {
    f"{_SERVICE}/ListEvents": _OPERATORS,
    f"{_SERVICE}/GetEvent": _OPERATORS,
    f"{_SERVICE}/ReplayEvents": _OPERATORS,
    f"{_SERVICE}/DropEvents": _OPERATORS,
}
"""The roles, by method; a method without roles is for operators alone."""
