"""Reads a stream that has no end: anew whenever it breaks, for as long as its reader wants."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

import grpc

from services.runtime.channel import WATCHING
from services.runtime.errors import DeadlineExceeded, Unavailable, from_rpc_error

__all__ = ["PATIENCE_S", "Heard", "read_stream", "watch_again"]

PATIENCE_S = 60.0
"""How long a service may stay away before its watchers give up."""
STEADY_S = 5.0
"""A stream that lasted this long was a good one, even if it had nothing to say."""
PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 2.0

ResponseType = TypeVar("ResponseType")

Heard = Callable[[bool], object]
"""Is told whether the service has a watcher's stream, each time that it is said anew."""


async def watch_again(
    open_stream: Callable[[], grpc.aio.UnaryStreamCall[Any, ResponseType]],
    patience_s: float,
    heard: Heard = lambda _: None,
) -> AsyncGenerator[ResponseType]:
    """Yields what a stream answers, and goes on with a new one when the service went away.

    Raises Unavailable when the service stays away for `patience_s`, and every other error at once.
    It has no end of its own: leave it by `contextlib.aclosing`, or the service streams on.
    """
    away_since: float | None = None
    pause_s = PAUSE_S_MIN
    while True:
        began = time.monotonic()
        call = open_stream()
        # A stream may have nothing to say for days; then the service says that it is there.
        opening = asyncio.create_task(_await_opening(call, heard))
        try:
            async with contextlib.aclosing(read_stream(call)) as responses:
                async for response in responses:
                    away_since, pause_s = None, PAUSE_S_MIN
                    heard(True)
                    yield response
        except DeadlineExceeded:
            pass  # An hour is over.
        except Unavailable:
            ended = time.monotonic()
            if ended - began > STEADY_S:
                # It was there until now, however long that was.
                away_since, pause_s = ended, PAUSE_S_MIN
            away_since = began if away_since is None else away_since
            if ended - away_since > patience_s:
                raise
        finally:
            opening.cancel()
            heard(False)
        # All streams of a server that leaves end together; their watchers come back apart.
        await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311  Nothing secret.
        pause_s = min(pause_s * 2, PAUSE_S_MAX)


async def _await_opening(call: grpc.aio.UnaryStreamCall[Any, Any], heard: Heard) -> None:
    # A refusal has metadata too, but not this.
    if any(name == WATCHING for name, _ in await call.initial_metadata() or ()):
        heard(True)


async def read_stream(
    call: grpc.aio.UnaryStreamCall[Any, ResponseType],
) -> AsyncGenerator[ResponseType]:
    """Yields what a stream answers until it ends; raises ServiceError and nothing else.

    Leave it early by `contextlib.aclosing`, or the service streams on.
    """
    try:
        async for response in call:
            yield response
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    finally:
        # Leaving the loop alone would not end the stream.
        call.cancel()
