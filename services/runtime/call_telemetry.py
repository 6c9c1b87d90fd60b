"""Measures, traces and logs every gRPC call, from the side that answers it or from that it comes.

A client's call is never awaited here, or its cancellation would not reach the server
(open-telemetry/opentelemetry-python-contrib#3271): what there is to do at its end, a callback does.
Spans are made of unary calls only; a stream is open for an hour and says nothing by that.
"""

import asyncio
import contextlib
import functools
import logging
import re
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import grpc
from structlog.contextvars import bind_contextvars

from services.runtime.calls import Call
from services.runtime.metrics import CallMetrics
from services.runtime.telemetry import get_logger
from services.runtime.tracing import (
    TRACEPARENT,
    CallSpan,
    begin_call,
    current_traceparent,
    enter_call,
)

__all__ = ["ClientCall", "ClientTelemetry", "ServerTelemetry"]

FAILURES = frozenset(
    {
        *("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE"),
        *("DATA_LOSS", "RESOURCE_EXHAUSTED"),
    }
)
"""Statuses that say that something failed; all others are answers, if not always yes."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_IDS: Final = ("user_id", "generation_id", "reservation_id", "webhook_id")
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}

_LOGGING = logging.getLogger(__name__)
logger = get_logger(__name__)


class ServerTelemetry:
    """Looks at the calls that a server answers."""

    def __init__(self, measured: CallMetrics | None = None) -> None:
        self._measured = measured

    @contextlib.asynccontextmanager
    async def around(self, call: Call) -> AsyncIterator[None]:
        """Measures a call, makes it a span, and has the log say what it is about."""
        began = time.monotonic()
        ids = _ids_in(call.request)
        if ids:
            bind_contextvars(**ids)
        span = _enter(call, ids)
        broken_off = False
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            broken_off = True
            raise
        finally:
            code = _broken_off(call.context) if broken_off else _code(call.context.code())
            seconds = time.monotonic() - began
            if self._measured is not None:
                self._measured.ended(call.method, code, seconds)
            if span is not None:
                _end(span, code)
            # What is dropped costs less if it is not even put together.
            if _LOGGING.isEnabledFor(logging.DEBUG):
                milliseconds = round(seconds * 1000, 1)
                logger.debug("call", method=call.method, code=code, milliseconds=milliseconds)


class ClientTelemetry:
    """Looks at the calls that are made on a channel."""

    def __init__(self, measured: CallMetrics | None = None) -> None:
        self._measured = measured

    def begin(self, details: Any, *, streams: bool) -> "ClientCall":
        """Begins a call, as what is handed to gRPC says."""
        method: str = (
            details.method.decode() if isinstance(details.method, bytes) else details.method
        )
        span = None
        if not streams and not method.startswith("/grpc."):
            span = begin_call(method[1:], _attributes(method))
        return ClientCall(method, self._measured, span)


class ClientCall:
    """A call that a client made."""

    __slots__ = ("_began", "_measured", "_method", "_span")

    def __init__(self, method: str, measured: CallMetrics | None, span: CallSpan | None) -> None:
        self._method = method
        self._measured = measured
        self._span = span
        self._began = time.monotonic()

    def metadata(self, given: Any) -> Any:
        """Returns the metadata to send: what is `given`, and the trace."""
        traceparent = current_traceparent() if self._span is None else self._span.traceparent
        if traceparent is None:
            return given
        return grpc.aio.Metadata(*(given or ()), (TRACEPARENT, traceparent))

    def watch(self, call: Any) -> None:
        """Has the end of the call noted, whenever it comes."""
        if self._span is not None or self._measured is not None:
            call.add_done_callback(self._end)

    def _end(self, call: Any) -> None:
        code = _code_of_ended(call)
        if self._measured is not None and not self._method.startswith("/grpc."):
            self._measured.ended(self._method, code, time.monotonic() - self._began)
        if self._span is not None:
            _end(self._span, code)


def _ids_in(request: Any) -> dict[str, str]:
    """Returns the ids that a request names; what has no form of an id is none, and is not kept."""
    found = {}
    kind: Any = type(request)  # Every class has a hash, whatever mypy says of it.
    for name in _id_fields(kind):
        value = getattr(request, name)
        if isinstance(value, str) and _ID.fullmatch(value):
            found[name] = value
    return found


@functools.lru_cache(maxsize=256)
def _id_fields(kind: type[object]) -> tuple[str, ...]:
    """Returns which fields of a message are ids."""
    descriptor: Any = getattr(kind, "DESCRIPTOR", None)
    return () if descriptor is None else tuple(n for n in _IDS if n in descriptor.fields_by_name)


def _enter(call: Call, ids: dict[str, str]) -> CallSpan | None:
    if call.streams:
        return None
    metadata: Sequence[tuple[str, Any]] = call.context.invocation_metadata() or ()
    traceparent = next((value for name, value in metadata if name == TRACEPARENT), None)
    span = enter_call(call.method[1:], traceparent, _attributes(call.method))
    if span is not None:
        span.tell(**{f"reelworks__{name}": value for name, value in ids.items()})
    return span


def _attributes(method: str) -> dict[str, str | int]:
    return {"rpc.system.name": "grpc", "rpc.method": method[1:]}


def _end(span: CallSpan, code: str) -> None:
    span.tell(rpc__response__status_code=code)
    if code in FAILURES:
        span.fail(code)
    span.end()


def _broken_off(context: Any) -> str:
    left_s: float | None = context.time_remaining()
    is_late = left_s is not None and left_s <= 0
    code = grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED
    return code.name


def _code(code: Any) -> str:
    """Returns the name of what a context keeps, which is a status, its number or nothing."""
    if not code:
        return grpc.StatusCode.OK.name
    return code.name if isinstance(code, grpc.StatusCode) else _NAMES.get(code, "UNKNOWN")


def _code_of_ended(call: Any) -> str:
    """Returns the status of a call that has ended, of which it need not be waited for."""
    asking = call.code()
    try:
        asking.send(None)
    except StopIteration as answer:
        return _code(answer.value)
    finally:
        asking.close()
    return grpc.StatusCode.UNKNOWN.name
