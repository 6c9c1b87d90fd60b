"""What the clients of all services have in common: a connection that is opened and closed."""

from types import TracebackType
from typing import Self

from services.client.deadlines import DEADLINES_S
from services.runtime.channel import MESSAGE_BYTES_MAX, connect

__all__ = ["Connection"]


class Connection:
    """The connection to one service, to be made inside a running event loop and closed after use.

    `async with` closes it.
    """

    def __init__(self, address: str, message_bytes_max: int = MESSAGE_BYTES_MAX) -> None:
        self._channel = connect(address, DEADLINES_S, message_bytes_max)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection, and the calls that are under way."""
        await self._channel.close()
