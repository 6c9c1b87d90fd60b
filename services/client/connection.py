"""What the clients of all services have in common: a connection that is opened and closed."""

from types import TracebackType
from typing import Self

from services.client.deadlines import DEADLINES_S
from services.runtime.channel import MESSAGE_BYTES_MAX, connect
from services.runtime.metrics import CallMetrics
from services.runtime.tls import Certificates

__all__ = ["Connection"]


class Connection:
    """The connection to one service, to be made inside a running event loop and closed after use.

    `async with` closes it. It shows `certificates`, the newest at any time; without them it raises
    PlaintextRefused unless the service is on this machine.
    """

    def __init__(
        self,
        address: str,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
        certificates: Certificates | None = None,
        measured: CallMetrics | None = None,
    ) -> None:
        """Takes what its calls are measured with; None for nobody to see."""
        self._channel = connect(address, DEADLINES_S, message_bytes_max, certificates, measured)

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
