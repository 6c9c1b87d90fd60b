"""Carries requests to the provider by our rules, and records what really happened.

The provider's package (1.0.7) waits for ever, sleeps for as long as it is told, sends the token to
any host, and loses the answer to a paid create over a missing field. Below it lies this transport:
it bounds every exchange, refuses what must not be sent, and keeps each answer as it came.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import httpx

from services.runtime.failpoints import failpoint

__all__ = ["Exchange", "GuardedTransport", "Phase", "observe"]

ANSWER_BYTES_MAX = 16 * 1024 * 1024


class Phase(StrEnum):
    """How far an exchange came."""

    WAITING = "waiting"
    """Not a byte has left."""
    SENT = "sent"
    """The first byte of the request may have left."""
    ANSWERED = "answered"


@dataclass(slots=True)
class Exchange:
    """What really passed between us and the provider; the transport fills it."""

    send_before: float | None = None
    """Monotonic time after which not a byte is sent any more; None = whenever."""
    cancel_after_s: float | None = None
    """Of a create: when the provider shall end it by itself. None = it is no create."""
    phase: Phase = Phase.WAITING
    status: int | None = None
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    body: bytes = b""
    received_at: datetime | None = None
    """When the answer was there, by this machine's clock."""
    problem: str = ""
    is_late: bool = False
    """Whether the time to send it was over before its first byte."""
    """What kept it from being answered, in words for operators."""


_exchange: ContextVar[Exchange] = ContextVar("exchange")


async def observe(
    exchange: Exchange, call: Callable[[], Awaitable[object]], limit_s: float
) -> None:
    """Awaits `call` for at most `limit_s`, while `exchange` notes what it does on the wire.

    What the call returns or raises does not count, so nothing but CancelledError is raised.
    """
    token = _exchange.set(exchange)
    try:
        # A server that sends a byte now and then resets every other timeout for ever.
        async with asyncio.timeout(limit_s):
            await call()
    except Exception as error:  # noqa: BLE001  The package's opinion does not count.
        exchange.problem = exchange.problem or f"{type(error).__name__}: {error}"
    finally:
        _exchange.reset(token)


class GuardedTransport(httpx.AsyncBaseTransport):
    """Sends what `observe` runs to one origin, and notes it in the exchange."""

    def __init__(self, base_url: httpx.URL) -> None:
        self._origin = (base_url.scheme, base_url.host, base_url.port)
        # A fresh connection for every create: one that went stale would make its outcome unknown.
        context = httpx.create_ssl_context()
        self._creates = httpx.AsyncHTTPTransport(
            verify=context, retries=0, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self._others = httpx.AsyncHTTPTransport(
            verify=context,
            retries=0,
            limits=httpx.Limits(max_connections=100, max_keepalive_connections=20),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Returns the provider's answer, without what the package would act on by itself."""
        exchange = _exchange.get()
        if (request.url.scheme, request.url.host, request.url.port) != self._origin:
            raise _Withheld(f"{request.url.host} is not the provider's API")
        if "Prefer" in request.headers:
            raise _Withheld("an open request is an answer to lose")
        request.extensions = {
            "timeout": httpx.Timeout(connect=5.0, write=10.0, read=20.0, pool=5.0).as_dict(),
            "trace": _tracer(exchange),
        }
        request.headers["Accept-Encoding"] = "identity"
        is_create = exchange.cancel_after_s is not None
        if is_create:
            request.headers["Cancel-After"] = f"{exchange.cancel_after_s:.0f}s"
        transport = self._creates if is_create else self._others
        response = await transport.handle_async_request(request)
        try:
            body = await _read_bounded(response)
        finally:
            await response.aclose()
        exchange.status, exchange.headers, exchange.body = (
            response.status_code,
            response.headers,
            body,
        )
        exchange.received_at = datetime.now(UTC)
        exchange.phase = Phase.ANSWERED
        if response.status_code in (429, 503, 504):
            # The package would ask again by itself, and sleep for as long as it is told.
            raise _Withheld(f"HTTP {response.status_code}")
        content_type = response.headers.get("Content-Type", "application/json")
        return httpx.Response(
            response.status_code,
            headers={"Content-Type": content_type},
            content=body,
            request=request,
        )

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._creates.aclose()
        await self._others.aclose()


class _Late(Exception):
    """The time to send a create is over."""


class _Withheld(Exception):
    """Something that the package must not send, or must not see."""


def _tracer(exchange: Exchange) -> Callable[[str, Any], Awaitable[None]]:
    """Returns what httpcore tells of each step: here is the exact border between sent and not."""

    async def trace(name: str, _info: Any) -> None:
        if name == "http11.send_request_headers.started":
            if exchange.send_before is not None and time.monotonic() > exchange.send_before:
                exchange.is_late = True
                raise _Late("too late to be sent")
            exchange.phase = Phase.SENT
        elif name == "http11.send_request_body.complete" and exchange.send_before is not None:
            failpoint("submit.sent")

    return trace


async def _read_bounded(response: httpx.Response) -> bytes:
    parts, size = [], 0
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    async for part in stream:
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            raise _Withheld(f"the answer has more than {ANSWER_BYTES_MAX} bytes")
        parts.append(part)
    return b"".join(parts)
