"""What happens to every call on its way to a servicer and back.

The order is the order of `server_interceptors`: telemetry outermost, or its lines would say OK for
failures; errors next, so that whatever the others raise becomes a status; then who calls, whether
there is room, whether there is time, and whether the request makes sense.
"""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_status import rpc_status

from services.runtime.errors import (
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    Overloaded,
    ServiceError,
    ServiceFailed,
    to_status,
)
from services.runtime.telemetry import get_logger
from services.runtime.validation import Validator

__all__ = ["Around", "Call", "remaining_s", "server_interceptors"]

DEADLINE_MARGIN_S = 0.02
"""With less time left than this, no answer would arrive in time."""
REQUEST_BYTES_MAX = 64 * 1024
"""Of a request, unless its method takes larger ones: what anybody may have this process look at."""

logger = get_logger(__name__)

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def remaining_s() -> float | None:
    """Returns the seconds left of the call being answered, None outside of one or without end."""
    deadline = _deadline.get()
    return None if deadline is None else deadline - time.monotonic()


@dataclass(frozen=True, slots=True)
class Call:
    """A call being answered."""

    method: str
    """`/package.Service/Method`."""
    request: Any
    context: Any
    streams: bool
    """Whether it answers with a stream."""


Around = Callable[[Call], AbstractAsyncContextManager[None]]
"""What happens around a call; to keep it from its handler, it raises."""


def server_interceptors(
    domain: str,
    telemetry: Around,
    identity: Around,
    validator: Validator,
    calls_max: int,
    streams_max: int,
    request_bytes_max: Mapping[str, int],
) -> Sequence[grpc.aio.ServerInterceptor]:
    """Returns the interceptors of a server whose errors belong to `domain`, outermost first.

    `telemetry` looks at all that happens; `identity` lets calls in, or raises. `request_bytes_max`
    has the methods whose requests may be larger than REQUEST_BYTES_MAX.
    """
    return [
        _Interceptor(telemetry),
        _Interceptor(functools.partial(_errors, domain)),
        _Interceptor(identity),
        _Interceptor(_Admission(calls_max, streams_max).admit),
        _Interceptor(_deadlines),
        _Interceptor(functools.partial(_validation, validator)),
        _Sizes(request_bytes_max),
    ]


class _Interceptor(grpc.aio.ServerInterceptor):
    """Runs a context manager around each call; gRPC's own methods (health, reflection) pass."""

    def __init__(self, around: Around) -> None:
        self._around = around
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Returns the handler of a call, wrapped."""
        # gRPC has one handler for each method, which needs to be wrapped but once.
        wrapped = self._wrapped.get(details.method)
        if wrapped is None:
            handler = await continuation(details)
            if handler is None or details.method.startswith("/grpc."):
                return handler
            wrapped = self._wrapped[details.method] = self._wrap(handler, details.method)
        return wrapped

    def _wrap(self, handler: Any, method: str) -> Any:
        if handler.unary_unary:
            return handler._replace(unary_unary=self._unary(handler.unary_unary, method))
        return handler._replace(unary_stream=self._stream(handler.unary_stream, method))

    def _unary(self, inner: Any, method: str) -> Any:
        @functools.wraps(inner)
        async def answer(request: Any, context: Any) -> Any:
            async with self._around(Call(method, request, context, streams=False)):
                return await inner(request, context)

        return answer

    def _stream(self, inner: Any, method: str) -> Any:
        @functools.wraps(inner)
        async def answer(request: Any, context: Any) -> Any:
            async with self._around(Call(method, request, context, streams=True)):
                async for message in inner(request, context):
                    yield message

        return answer


@dataclass(frozen=True, slots=True)
class _TooLarge:
    """Stands for a request that nobody looks into."""

    size_bytes: int
    size_bytes_max: int


class _Sizes(grpc.aio.ServerInterceptor):
    """Has large requests not even parsed; `_validation` refuses what is given in their place."""

    def __init__(self, bytes_max: Mapping[str, int]) -> None:
        self._bytes_max = bytes_max

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        """Returns the handler of a call, which parses requests up to the size for its method."""
        handler = await continuation(details)
        if handler is None or details.method.startswith("/grpc."):
            return handler
        bytes_max = self._bytes_max.get(details.method, REQUEST_BYTES_MAX)
        parse = handler.request_deserializer

        def parse_small(serialized: bytes) -> Any:
            size_bytes = len(serialized)
            return (
                parse(serialized) if size_bytes <= bytes_max else _TooLarge(size_bytes, bytes_max)
            )

        return handler._replace(request_deserializer=parse_small)


@contextlib.asynccontextmanager
async def _errors(domain: str, call: Call) -> AsyncIterator[None]:
    """Ends a call that raised with the status that tells its caller why."""
    try:
        yield
    except (grpc.aio.AbortError, GeneratorExit):
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            # The caller left, its deadline passed, or we stop. Answering would leak:
            # grpc/grpc#43360.
            raise
        # Somebody else canceled a task that the handler awaited. Without an answer the caller would
        # wait for ever: grpc/grpc#29248.
        await _abort(call, ServiceFailed(), domain)
    except ServiceError as error:
        await _abort(call, error, domain)
    except Exception as error:
        logger.exception("call failed", method=call.method, exc_info=error)
        await _abort(call, ServiceFailed(), domain)


async def _abort(call: Call, error: ServiceError, domain: str) -> None:
    # A service that leaves tells each of its streams so, without a reason; no trouble in that.
    if error.log_level > logging.INFO and error.reason:
        caller = {key: error.metadata[key] for key in ("role",) if key in error.metadata}
        logger.log(
            error.log_level, "call refused", method=call.method, reason=error.reason, **caller
        )
    status = rpc_status.to_status(to_status(error, domain))
    await call.context.abort(status.code, status.details, status.trailing_metadata)


class _Admission:
    """Refuses calls above a limit; streams, which stay for long, have a limit of their own."""

    def __init__(self, calls_max: int, streams_max: int) -> None:
        self._calls_free = calls_max
        self._streams_free = streams_max

    @contextlib.asynccontextmanager
    async def admit(self, call: Call) -> AsyncIterator[None]:
        """Holds one of the places while the call lasts."""
        if (self._streams_free if call.streams else self._calls_free) <= 0:
            raise Overloaded("SERVICE_OVERLOADED", "Too many calls at once.")
        self._take(1, call)
        try:
            yield
        finally:
            self._take(-1, call)

    def _take(self, places: int, call: Call) -> None:
        if call.streams:
            self._streams_free -= places
        else:
            self._calls_free -= places


@contextlib.asynccontextmanager
async def _deadlines(call: Call) -> AsyncIterator[None]:
    """Keeps the deadline for the calls that the handler makes, and refuses what comes too late."""
    left_s: float | None = call.context.time_remaining()
    if left_s is not None:
        if left_s < DEADLINE_MARGIN_S:
            raise DeadlineExceeded("", "The call arrived with no time left.")
        _deadline.set(time.monotonic() + left_s)
    yield


@contextlib.asynccontextmanager
async def _validation(validator: Validator, call: Call) -> AsyncIterator[None]:
    """Refuses malformed requests before the servicer sees them."""
    match call.request:
        case _TooLarge(size_bytes=size_bytes, size_bytes_max=size_bytes_max):
            rule = f"must have at most {size_bytes_max} bytes, has {size_bytes}"
            raise InvalidRequest([FieldViolation("request", rule)])
    validator.validate(call.request)
    yield
