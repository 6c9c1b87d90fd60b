"""Says who calls: the role that a certificate names, and which methods it may call."""

import contextlib
import functools
import ipaddress
import re
from collections.abc import AsyncIterator, Mapping, Sequence

from services.runtime.calls import Call
from services.runtime.errors import NotAllowed

__all__ = ["OPERATOR", "Callers", "admit_certified", "admit_local", "named_role"]

OPERATOR = "operator"
"""The role that may call everything."""
REASON = "CALLER_NOT_ALLOWED"
UNKNOWN = "unknown"

Callers = Mapping[str, frozenset[str]]
"""The roles, besides the operator's, that may call a method, by `/package.Service/Method`."""

_ROLE = re.compile(r"spiffe://reelworks/([a-z][a-z0-9-]{0,31})")


def named_role(uris: Sequence[str]) -> str | None:
    """Returns the role that the URIs of a certificate name; None unless it is all they name."""
    match = _ROLE.fullmatch(uris[0]) if len(uris) == 1 else None
    return None if match is None else match[1]


@contextlib.asynccontextmanager
async def admit_certified(callers: Callers, call: Call) -> AsyncIterator[None]:
    """Lets in who shows a certificate whose role may call the method."""
    # Not `x509_subject_alternative_name`, where a DNS name can read like an URI.
    role = _role_of(tuple(call.context.auth_context().get("peer_uri", ())))
    if role is None:
        message = (
            f"{call.method} is answered to certificates with exactly one URI among their names, "
            "spiffe://reelworks/<role>; the role of this caller is unknown."
        )
        raise NotAllowed(REASON, message, role=UNKNOWN, method=call.method)
    if role != OPERATOR and role not in callers.get(call.method, ()):
        message = f"The role {role} may not call {call.method}."
        raise NotAllowed(REASON, message, role=role, method=call.method)
    yield


@contextlib.asynccontextmanager
async def admit_local(call: Call) -> AsyncIterator[None]:
    """Lets in who is on this machine, where no certificates are shown; each is the operator."""
    if not _is_local(call.context.peer()):
        message = "Plaintext calls are answered on this machine only."
        raise NotAllowed(REASON, message, role=UNKNOWN, method=call.method)
    yield


@functools.lru_cache(maxsize=64)
def _role_of(uris: tuple[bytes, ...]) -> str | None:
    return named_role([uri.decode("ascii", "replace") for uri in uris])


@functools.lru_cache(maxsize=1024)
def _is_local(peer: str) -> bool:
    """Tells whether gRPC's name of a peer (`ipv4:127.0.0.1:4711`, `unix:`) is this machine's."""
    kind, _, rest = peer.partition(":")
    if kind in ("unix", "unix-abstract"):
        return True
    host = rest.rpartition(":")[0].replace("%5B", "[").replace("%5D", "]").strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
