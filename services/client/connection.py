"""What the clients of all services have in common: a connection that is opened and closed."""

from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.client.deadlines import DEADLINES_S
from services.runtime.channel import MESSAGE_BYTES_MAX, connect

__all__ = ["Connection"]


class Connection:
    """The connection to one service, to be made inside a running event loop and closed after use.

    `async with` closes it.
    """

    def __init__(self, address: str, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._channel = connect(address, DEADLINES_S, message_bytes_max)
        self._health: Any = health_pb2_grpc.HealthStub(self._channel)  # Its types know no methods.

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def is_serving(self, within_s: float) -> bool:
        """Tells whether the service answers calls on this connection now."""
        try:
            answer = await self._health.Check(health_pb2.HealthCheckRequest(), timeout=within_s)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Ends the connection, and the calls that are under way."""
        await self._channel.close()
