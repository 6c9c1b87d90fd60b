"""Holds requests to their rates, for `dependencies=[…]` of routes."""

import ipaddress
from collections.abc import AsyncIterator

from fastapi import Depends, Request

from services.web.callers import SignedIn
from services.web.headers import add_header
from services.web.parts import Parts, WiredParts
from services.web.problems import Refused, problem
from services.web.rates import Limits, Rate, TooManyStreams

__all__ = ["CallRate", "CreateRate", "Limits", "SignInRate", "StreamSlot", "UploadRate"]

IPV6_PREFIX = 64
"""Whoever has one IPv6 address has all of its network."""
STREAM_RETRY_S = 30.0


async def _hold(request: Request, parts: Parts, rate: Rate, key: str) -> None:
    allowance = await parts.limits.take(rate, key)
    if allowance is None:
        return
    for name, value in allowance.headers().items():
        add_header(request, name, value)
    if not allowance.is_granted:
        detail = f"There may be {allowance.limit} {rate} a minute; come back a little later."
        raise Refused(
            problem(
                429,
                "RATE_LIMITED",
                detail,
                metadata={"rate": rate.value, "limit": allowance.limit},
                retry_after_s=allowance.reset_s,
            )
        )


async def _hold_creates(request: Request, parts: WiredParts, caller: SignedIn) -> None:
    await _hold(request, parts, Rate.CREATES, caller.user_id)


async def _hold_uploads(request: Request, parts: WiredParts, caller: SignedIn) -> None:
    await _hold(request, parts, Rate.UPLOADS, caller.user_id)


async def _hold_calls(request: Request, parts: WiredParts, caller: SignedIn) -> None:
    await _hold(request, parts, Rate.CALLS, caller.user_id)


async def _hold_sign_ins(request: Request, parts: WiredParts) -> None:
    await _hold(request, parts, Rate.SIGN_INS, _network_of(request))


async def _hold_stream(parts: WiredParts, caller: SignedIn) -> AsyncIterator[None]:
    try:
        with parts.limits.stream(caller.user_id):
            yield
    except TooManyStreams:
        limit = parts.settings.streams_per_user
        detail = f"You have {limit} streams open already; close one."
        raise Refused(
            problem(
                429,
                "TOO_MANY_STREAMS",
                detail,
                metadata={"limit": limit},
                retry_after_s=STREAM_RETRY_S,
            )
        ) from None


def _network_of(request: Request) -> str:
    """Returns what one caller has of addresses. Behind a trusted proxy it is the proxy's caller."""
    host = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), IPV6_PREFIX), strict=False))
    return host


CreateRate = Depends(_hold_creates)
"""For a route that starts a generation."""
UploadRate = Depends(_hold_uploads)
"""For one that takes an image."""
CallRate = Depends(_hold_calls)
"""For every other one of somebody signed in."""
StreamSlot = Depends(_hold_stream)
"""For a stream: a place is held until the answer has ended."""
SignInRate = Depends(_hold_sign_ins)
"""For a try to sign in."""
