"""Runs a gRPC server from its first to its last call."""

import asyncio
import faulthandler
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pydantic import Field

from services.runtime.calls import server_interceptors
from services.runtime.program import ProcessSettings
from services.runtime.settings import exit_with, is_loopback
from services.runtime.telemetry import get_logger
from services.runtime.validation import Check, Validator

__all__ = ["ServedService", "Server", "ServerSettings"]

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
METADATA_BYTES_MAX = 16 * 1024
HANG_DUMP_MARGIN_S = 5.0
CALLS_MAX = 100_000
COMPANION_MARGIN_S = 0.5

logger = get_logger(__name__)


class ServerSettings(ProcessSettings):
    """Settings of a process with a gRPC server."""

    address: str
    """Where the server listens: `host:port`, on a loopback address while it has no certificate."""
    calls_max: Annotated[int, Field(ge=1, le=CALLS_MAX)] = 1000
    """How many unary calls are answered at once; those above are refused."""
    streams_max: Annotated[int, Field(ge=1, le=CALLS_MAX)] = 1000
    """How many streams are open at once; those above are refused."""


@dataclass(frozen=True, slots=True)
class ServedService:
    """One service of a server."""

    name: str
    """Full name, `package.Service`."""
    register: Callable[[grpc.aio.Server], None]
    """Adds its servicer to the server."""


@dataclass(frozen=True, slots=True)
class Server:
    """What a process serves, and what it does besides."""

    settings: ServerSettings
    domain: str
    """Domain of its errors, as in `ErrorInfo.domain`."""
    services: Sequence[ServedService]
    leave: asyncio.Event
    """Set from outside when the server shall leave, as by SIGTERM."""
    stopping: asyncio.Event
    """Set when no call should begin a long wait any more: streams end by themselves then."""
    checks: Mapping[str, Check] = field(default_factory=dict)
    """What is checked of requests beyond their annotations, by full name of the message."""
    late_checks: Mapping[str, Check] = field(default_factory=dict)
    """What a servicer checks itself, listed beside other violations only; see `Validator`."""
    message_bytes_max: int = MESSAGE_BYTES_MAX
    request_bytes_max: Mapping[str, int] = field(default_factory=dict)
    """Size of requests by `/package.Service/Method`, for methods that take more than 64 KiB."""

    async def serve(self, *companions: Coroutine[Any, Any, None]) -> None:
        """Serves until `leave` is set, then leaves in the order that loses no call.

        `companions` run meanwhile, as workers do, and should end when `stopping` is set; those that
        have not after the grace are canceled. One that fails takes the whole process down, since a
        service without its worker would only pretend.
        """
        server, health = self._build()
        await server.start()
        health.serving = True
        logger.info("serving", address=self.settings.address)
        tasks = [asyncio.create_task(companion) for companion in companions]
        for task in tasks:
            task.add_done_callback(lambda _: self.leave.set())
        await self.leave.wait()

        logger.info("leaving", drain_s=self.settings.drain_s)
        # Should leaving hang, the stacks of all threads say where.
        faulthandler.dump_traceback_later(
            self.settings.drain_s + self.settings.grace_s + HANG_DUMP_MARGIN_S
        )
        health.leave()
        await asyncio.sleep(self.settings.drain_s)
        self.stopping.set()
        health.stop()
        await asyncio.gather(server.stop(self.settings.grace_s), self._end(tasks))
        faulthandler.cancel_dump_traceback_later()
        for task in tasks:
            if not task.cancelled():
                task.result()
        logger.info("left")

    async def _end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Waits for companions to end, and ends those that do not."""
        if not tasks:
            return
        # A companion that has a grace of its own is let end it.
        limit_s = self.settings.grace_s + COMPANION_MARGIN_S
        _, late = await asyncio.wait(tasks, timeout=limit_s)
        if late:
            logger.warning("left before all had ended", grace_s=self.settings.grace_s)
            for task in late:
                task.cancel()
            await asyncio.wait(late)

    def _build(self) -> tuple[grpc.aio.Server, "_Health"]:
        settings = self.settings
        if not is_loopback(settings.address):
            exit_with(
                f"REELWORKS_ADDRESS: {settings.address} is not a loopback address; a server "
                "without a certificate answers on this machine only"
            )
        server = grpc.aio.server(
            interceptors=server_interceptors(
                self.domain,
                Validator(self.checks, self.late_checks),
                settings.calls_max,
                settings.streams_max,
                self.request_bytes_max,
            ),
            options=[
                ("grpc.so_reuseport", 0),  # Two services on one port is a mistake, not a pool.
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                # Else quiet streams die of `too_many_pings`.
                ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.max_metadata_size", METADATA_BYTES_MAX),
                ("grpc.max_send_message_length", self.message_bytes_max),
                ("grpc.max_receive_message_length", self.message_bytes_max),
            ],
        )
        names = [service.name for service in self.services]
        for service in self.services:
            service.register(server)
        health = _Health(names)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        if settings.environment == "local":
            reflection.enable_server_reflection(
                (*names, "grpc.health.v1.Health", reflection.SERVICE_NAME), server
            )
        try:
            server.add_insecure_port(settings.address)
        except RuntimeError:
            exit_with(f"REELWORKS_ADDRESS: {settings.address} cannot be listened on; is it taken?")
        logger.warning("plaintext: every caller on this machine is an operator")
        return server, health


class _Health(health_pb2_grpc.HealthServicer):
    """Answers `grpc.health.v1`; its watches end when the process leaves.

    The packaged servicer's do not, and would hold the server for the whole grace.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = {"", *names}
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self.serving = False

    def leave(self) -> None:
        """Says NOT_SERVING from now on."""
        self.serving = False
        self._changed.set()

    def stop(self) -> None:
        """Ends all watches."""
        self._stopping.set()
        self._changed.set()

    async def Check(  # noqa: N802  gRPC's name.
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        """Answers the state of one service; NOT_FOUND for one that is not here."""
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return self._answer()

    async def Watch(  # noqa: N802  gRPC's name.
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Streams the state of one service on every change."""
        del context
        if request.service not in self._names:
            yield health_pb2.HealthCheckResponse(
                status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            )
        else:
            yield self._answer()
            await self._changed.wait()
            yield self._answer()
        await self._stopping.wait()

    async def List(  # noqa: N802  gRPC's name.
        self, request: Any, context: Any
    ) -> Any:
        """Answers the state of every service."""
        del request, context
        statuses = {name: self._answer() for name in sorted(self._names)}
        # The stubs of the health package are older than this method.
        return health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined]

    def _answer(self) -> health_pb2.HealthCheckResponse:
        states = health_pb2.HealthCheckResponse
        return states(status=states.SERVING if self.serving else states.NOT_SERVING)
