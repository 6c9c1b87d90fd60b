"""Reads a stream that has no end: anew whenever it breaks, for as long as its reader wants."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar

import grpc

from services.runtime.errors import DeadlineExceeded, Unavailable, from_rpc_error

__all__ = ["PATIENCE_S", "watch_again"]

PATIENCE_S = 60.0
"""How long a service may stay away before its watchers give up."""
STEADY_S = 5.0
"""A stream that lasted this long was a good one, even if it had nothing to say."""
PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 2.0

ResponseType = TypeVar("ResponseType")


async def watch_again(
    open_stream: Callable[[], grpc.aio.UnaryStreamCall[Any, ResponseType]], patience_s: float
) -> AsyncGenerator[ResponseType]:
    """Yields what a stream answers, and goes on with a new one when the service went away.

    Raises Unavailable when the service stays away for `patience_s`, and every other error at once.
    It has no end of its own: leave it by `contextlib.aclosing`, or the service streams on.
    """
    away_since: float | None = None
    pause_s = PAUSE_S_MIN
    while True:
        began = time.monotonic()
        try:
            async with contextlib.aclosing(_read(open_stream())) as responses:
                async for response in responses:
                    away_since, pause_s = None, PAUSE_S_MIN
                    yield response
        except DeadlineExceeded:
            pass  # An hour is over.
        except Unavailable:
            if time.monotonic() - began > STEADY_S:
                away_since, pause_s = None, PAUSE_S_MIN
            away_since = began if away_since is None else away_since
            if time.monotonic() - away_since > patience_s:
                raise
        # All streams of a server that leaves end together; their watchers come back apart.
        await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311  Nothing secret.
        pause_s = min(pause_s * 2, PAUSE_S_MAX)


async def _read(
    call: grpc.aio.UnaryStreamCall[Any, ResponseType],
) -> AsyncGenerator[ResponseType]:
    try:
        async for response in call:
            yield response
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    finally:
        # Leaving the loop alone would not end the stream.
        call.cancel()
