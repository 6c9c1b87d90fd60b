"""Runs a gRPC server from its first to its last call."""

import asyncio
import faulthandler
import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from pydantic import Field

from services.runtime.call_telemetry import ServerTelemetry
from services.runtime.calls import Around, server_interceptors
from services.runtime.health import Examine, Health, HealthServicer, serving_health
from services.runtime.identity import Callers, admit_certified, admit_local
from services.runtime.metrics import CallMetrics, Metrics
from services.runtime.program import ProcessSettings
from services.runtime.settings import DAY_S, HostAndPort, exit_with, is_loopback
from services.runtime.telemetry import get_logger
from services.runtime.tls import Certificates, open_certificates, server_credentials
from services.runtime.validation import Check, Validator

__all__ = ["ServedService", "Server", "ServerSettings"]

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
METADATA_BYTES_MAX = 16 * 1024
HANG_DUMP_MARGIN_S = 5.0
CALLS_MAX = 100_000
COMPANION_MARGIN_S = 0.5
CONNECTION_AGE_GRACE_MS = 620_000
"""How long the calls of a connection that is too old may take to end: longer than any but streams
may last, or they would be cut, and begin anew, on and on."""

logger = get_logger(__name__)


class ServerSettings(ProcessSettings):
    """Settings of a process with a gRPC server."""

    address: str
    """Where the server listens: `host:port`; without certificates, on a loopback address."""
    health_address: HostAndPort | None = None
    """Where probes are answered, in plaintext: `host:port`, by `grpc.health.v1` alone, with the
    names `startup`, `ready` and `live`. None: only beside the services, at their address."""
    connection_age_s: Annotated[float | None, Field(gt=0, le=DAY_S)] = None
    """After how long a connection takes no new calls, so that its caller looks which replicas there
    are; those under way have 620 s more. None: never; 300 where replicas come and go."""
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
    callers: Callers = field(default_factory=dict)
    """Who, besides operators, may call what; on plaintext everybody is an operator."""
    examine: Examine | None = None
    """Tells whether its database can be worked with; None if it has none."""
    metrics: Metrics | None = None
    """What its calls are measured with; None for nobody to see."""
    message_bytes_max: int = MESSAGE_BYTES_MAX
    request_bytes_max: Mapping[str, int] = field(default_factory=dict)
    """Size of requests by `/package.Service/Method`, for methods that take more than 64 KiB."""

    async def serve(self, *companions: Coroutine[Any, Any, None]) -> None:
        """Serves until `leave` is set, then leaves in the order that loses no call.

        `companions` run meanwhile, as workers do, and should end when `stopping` is set; those that
        have not after the grace are canceled. One that fails takes the whole process down, since a
        service without its worker would only pretend.
        """
        health = Health([service.name for service in self.services], self.examine)
        async with serving_health(health, self.settings.health_address):
            server = self._build(health)
            await server.start()
            health.start()
            logger.info("serving", address=self.settings.address)
            tasks = [asyncio.create_task(companion) for companion in companions]
            for task in tasks:
                task.add_done_callback(lambda _: self.leave.set())
            await self.leave.wait()
            await self._leave(server, health, tasks)
        health.end()
        for task in tasks:
            if not task.cancelled():
                task.result()
        logger.info("left")

    async def _leave(
        self, server: grpc.aio.Server, health: Health, tasks: Sequence[asyncio.Task[None]]
    ) -> None:
        """Has balancers look away, and lets calls and companions end."""
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

    def _telemetry(self) -> ServerTelemetry:
        measured = None if self.metrics is None else CallMetrics.of_server(self.metrics)
        return ServerTelemetry(measured)

    def _build(self, health: Health) -> grpc.aio.Server:
        settings = self.settings
        certificates = open_certificates(settings)
        if certificates is None and not is_loopback(settings.address):
            exit_with(
                f"REELWORKS_ADDRESS: {settings.address} is not a loopback address; a server "
                "without certificates (REELWORKS_TLS_CERTIFICATE_FILE, REELWORKS_TLS_KEY_FILE, "
                "REELWORKS_TLS_CA_FILE) answers on this machine only"
            )
        if certificates is not None and self.metrics is not None:
            self.metrics.watch_certificate(certificates.current)
        server = grpc.aio.server(
            interceptors=server_interceptors(
                self.domain,
                self._telemetry().around,
                self._identity(certificates),
                Validator(self.checks, self.late_checks),
                settings.calls_max,
                settings.streams_max,
                self.request_bytes_max,
            ),
            options=self._options(),
        )
        names = [service.name for service in self.services]
        for service in self.services:
            service.register(server)
        health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(health), server)
        if settings.environment == "local":
            reflection.enable_server_reflection(
                (*names, "grpc.health.v1.Health", reflection.SERVICE_NAME), server
            )
        try:
            if certificates is None:
                server.add_insecure_port(settings.address)
            else:
                server.add_secure_port(settings.address, server_credentials(certificates))
        except RuntimeError:
            exit_with(f"REELWORKS_ADDRESS: {settings.address} cannot be listened on; is it taken?")
        return server

    def _identity(self, certificates: Certificates | None) -> Around:
        if certificates is None:
            logger.warning("plaintext: every caller on this machine is an operator")
            return admit_local
        own = certificates.current()
        logger.info(
            "callers show certificates", role=own.role, expires_at=own.expires_at.isoformat()
        )
        return functools.partial(admit_certified, self.callers)

    def _options(self) -> list[tuple[str, int]]:
        options = [
            ("grpc.so_reuseport", 0),  # Two services on one port is a mistake, not a pool.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            # Else quiet streams die of `too_many_pings`.
            ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.max_metadata_size", METADATA_BYTES_MAX),
            ("grpc.max_send_message_length", self.message_bytes_max),
            ("grpc.max_receive_message_length", self.message_bytes_max),
        ]
        age_s = self.settings.connection_age_s
        if age_s is not None:
            # Callers look for new replicas only when a connection ends: grpc/grpc#12295.
            options += [
                ("grpc.max_connection_age_ms", round(age_s * 1000)),
                ("grpc.max_connection_age_grace_ms", CONNECTION_AGE_GRACE_MS),
            ]
        return options
