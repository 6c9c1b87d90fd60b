"""Keeps a channel that is made anew when the certificates change, without its stubs' notice."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc

from services.runtime.telemetry import get_logger
from services.runtime.tls import Certificates, Material

__all__ = ["RenewedChannel"]

LOOK_S = 1.0
"""How long calls are made before the files are looked at again."""
CALLS_BEGIN_S = 1.0
"""How long after a channel was replaced a call that chose it may take to reach it."""
CALL_S_MAX = 3_900.0
"""No call is let last longer than this on a channel that was replaced; streams are let an hour."""

logger = get_logger(__name__)

_Open = Callable[[Material], grpc.aio.Channel]


class RenewedChannel(grpc.aio.Channel):
    """A channel that is another one as soon as there are other certificates.

    Calls that are under way end on the channel on which they began, which is closed then.
    """

    def __init__(self, certificates: Certificates, open_channel: _Open) -> None:
        self._certificates = certificates
        self._open_channel = open_channel
        self._material = certificates.current()
        self._channel = open_channel(self._material)
        self._looked_at = time.monotonic()
        self._replaced: dict[asyncio.Task[None], grpc.aio.Channel] = {}

    def present(self) -> grpc.aio.Channel:
        """Returns the channel for a call that begins now."""
        now = time.monotonic()
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            material = self._certificates.current()
            if material is not self._material:
                self._material = material
                self._replace(self._open_channel(material))
        return self._channel

    async def close(self, grace: float | None = None) -> None:
        """Closes the channel, and those before it."""
        replaced, self._replaced = self._replaced, {}
        for task in replaced:
            task.cancel()
        await asyncio.gather(
            self._channel.close(grace), *(channel.close(grace) for channel in replaced.values())
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Returns the state of the present channel."""
        return self.present().get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Waits for another state of the present channel."""
        await self.present().wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Waits until the present channel is connected."""
        await self.present().channel_ready()

    def unary_unary(self, *method: Any, **options: Any) -> Any:
        """Returns a method of one request and one response."""
        return _Method(self, lambda channel: channel.unary_unary(*method, **options))

    def unary_stream(self, *method: Any, **options: Any) -> Any:
        """Returns a method of one request and many responses."""
        return _Method(self, lambda channel: channel.unary_stream(*method, **options))

    def stream_unary(self, *method: Any, **options: Any) -> Any:
        """Returns a method of many requests and one response."""
        return _Method(self, lambda channel: channel.stream_unary(*method, **options))

    def stream_stream(self, *method: Any, **options: Any) -> Any:
        """Returns a method of many requests and many responses."""
        return _Method(self, lambda channel: channel.stream_stream(*method, **options))

    def _replace(self, channel: grpc.aio.Channel) -> None:
        task = asyncio.get_running_loop().create_task(_close_when_idle(self._channel))
        self._replaced[task] = self._channel
        task.add_done_callback(lambda ended: self._replaced.pop(ended, None))
        self._channel = channel


class _Method:
    """A method of a stub, made anew for each channel on which it is called."""

    def __init__(self, renewed: RenewedChannel, make: Callable[[grpc.aio.Channel], Any]) -> None:
        self._renewed = renewed
        self._make = make
        self._channel = renewed.present()
        self._method = make(self._channel)

    def __call__(self, *requests: Any, **options: Any) -> Any:
        channel = self._renewed.present()
        if channel is not self._channel:
            self._channel, self._method = channel, self._make(channel)
        return self._method(*requests, **options)


async def _close_when_idle(channel: grpc.aio.Channel) -> None:
    """Closes a channel once its calls have ended."""
    await asyncio.sleep(CALLS_BEGIN_S)
    try:
        await channel.close(CALL_S_MAX)
    except Exception:
        # gRPC asks calls how they are, and those that were refused on this side raise instead.
        logger.exception("a replaced channel is left to itself")
