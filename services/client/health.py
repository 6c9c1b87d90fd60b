"""Asks a service whether it is ready."""

import asyncio
import contextlib
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.tls import Certificates, channel_credentials

__all__ = ["is_serving"]

PROBE_S = 1.0


async def is_serving(address: str, certificates: Certificates | None = None) -> bool:
    """Tells whether the gRPC server at `address` (`host:port`) answers calls now, within 1 s."""
    if not await _is_listening(address):
        return False
    # Channels that failed to connect share their back-off; a plain one of its own never waits.
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = (
        grpc.aio.insecure_channel(address, options=options)
        if certificates is None
        else grpc.aio.secure_channel(
            address, channel_credentials(certificates.current()), options=options
        )
    )
    async with channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # Its stubs leave the methods out.
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PROBE_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _is_listening(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
