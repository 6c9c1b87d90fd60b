"""Runs a service of ours inside a test, on a port of its own, until the test is over."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.channel import connect
from services.runtime.tls import Certificates

START_LIMIT_S = 10.0


def free_address() -> str:
    """Returns `host:port` of a port that was free just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


@contextlib.asynccontextmanager
async def serving(
    serve: Callable[[asyncio.Event], Coroutine[Any, Any, None]],
    address: str,
    certificates: Certificates | None = None,
) -> AsyncIterator[grpc.aio.Channel]:
    """Gives a channel to the server that `serve` runs at `address` until the event it takes is set.

    The channel shows `certificates`, if there are any. Raises what `serve` raised, at once if it
    does not start.
    """
    leave = asyncio.Event()
    task = asyncio.create_task(serve(leave))
    channel = connect(address, certificates=certificates)
    try:
        health: Any = health_pb2_grpc.HealthStub(channel)  # Its types know no methods.
        ready = asyncio.ensure_future(
            health.Check(
                health_pb2.HealthCheckRequest(), timeout=START_LIMIT_S, wait_for_ready=True
            )
        )
        await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            ready.cancel()
            await task
        await ready
        yield channel
    finally:
        await channel.close()
        leave.set()
        await task
