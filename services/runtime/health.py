"""Says how this process is, on its own port and beside its services (`grpc.health.v1`).

    startup   it has begun to serve: its schema is there, its database was reached
    ready     calls are welcome: it does not leave, and its database answered lately
    live      its event loop has turned lately; else only a restart helps

Other services do not count: one that is away would make all that call it unready. The names of its
services, and "", say whether it has begun to serve and does not leave, for callers who balance.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.errors import ServiceError
from services.runtime.settings import exit_with
from services.runtime.telemetry import get_logger

__all__ = ["Examine", "Health", "HealthServicer", "serving_health"]

STARTUP, READY, LIVE = "startup", "ready", "live"
PULSE_S = 1.0
TURN_S_MAX = 30.0
"""After so long without a turn of its event loop a process is not live."""
EXAMINED_S = 1.0
"""How long the answer of a database holds: it is asked no more often."""
GOOD_S = 10.0
"""How long after its last good answer a database that does not answer makes nobody unready: one
that is only slow must not lose all its replicas at once."""
EXAMINE_S_MAX = 2.0
THREADS = 2
PROBES_MAX = 32

Examine = Callable[[], Awaitable[str | None]]
"""Returns why calls should go elsewhere, None if they need not; raises ServiceError likewise."""

_States = health_pb2.HealthCheckResponse

logger = get_logger(__name__)


class Health:
    """What a process says of itself; to be made inside its event loop."""

    def __init__(self, names: Sequence[str], examine: Examine | None = None) -> None:
        self.names = frozenset({"", *names})
        """Its services, and all of them."""
        self.serving = False
        """Whether it has begun to serve, and does not leave."""
        self.started = False
        """Whether it has begun to serve, ever."""
        self.stopping = asyncio.Event()
        """Set when those who watch should be let go."""
        self.changed = asyncio.Event()
        """Set when it leaves."""
        self.loop = asyncio.get_running_loop()
        self._examine = examine
        self._examining = asyncio.Lock()
        self._examined_at = self._good_at = float("-inf")
        self._turned_at = time.monotonic()
        self._pulse: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Says that it serves."""
        self.started = self.serving = True
        self._beat()

    def leave(self) -> None:
        """Says NOT_SERVING from now on."""
        self.serving = False
        self.changed.set()

    def stop(self) -> None:
        """Ends all watches."""
        self.stopping.set()
        self.changed.set()

    def end(self) -> None:
        """Takes its pulse no more."""
        if self._pulse is not None:
            self._pulse.cancel()

    def knows(self, name: str) -> bool:
        """Tells whether there is anything of that name."""
        return name in self.names or name in (STARTUP, READY, LIVE)

    def all_names(self) -> list[str]:
        """Returns everything that can be asked for."""
        return sorted({*self.names, STARTUP, READY, LIVE})

    def is_live(self) -> bool:
        """Tells whether the event loop turns; any thread may ask."""
        return time.monotonic() - self._turned_at < TURN_S_MAX

    async def is_good(self, name: str) -> bool:
        """Answers for one of the names."""
        match name:
            case "startup":
                return self.started
            case "ready":
                return self.serving and await self._is_welcome()
            case "live":
                return self.is_live()
            case _:
                return self.serving

    def is_good_now(self, name: str) -> bool:
        """Answers for one of the names, for a thread that is not the event loop's."""
        if name == LIVE:
            return self.is_live()
        if name != READY:
            return self.started if name == STARTUP else self.serving
        asked = asyncio.run_coroutine_threadsafe(self.is_good(name), self.loop)
        try:
            return asked.result(EXAMINE_S_MAX + 0.5)
        except TimeoutError:
            # A connection that hangs also takes its time to be closed.
            asked.cancel()
            return self.serving and self._was_good()

    async def _is_welcome(self) -> bool:
        """Tells whether the database answered lately, and asks it again if that is a while ago."""
        if self._examine is None:
            return True
        async with self._examining:
            now = time.monotonic()
            if now - self._examined_at >= EXAMINED_S:
                self._examined_at = now
                problem = await self._ask(self._examine)
                if problem is None:
                    self._good_at = time.monotonic()
                else:
                    logger.warning("not well", cause=problem)
        return self._was_good()

    def _was_good(self) -> bool:
        """Tells whether the last good answer is young enough; any thread may ask."""
        return time.monotonic() - self._good_at < GOOD_S

    async def _ask(self, examine: Examine) -> str | None:
        try:
            async with asyncio.timeout(EXAMINE_S_MAX):
                problem = await examine()
        except TimeoutError:
            return "the database takes too long"
        except ServiceError as error:
            return error.message
        except Exception:
            logger.exception("the database refuses")
            return "the database refuses to be asked"
        if problem is not None:
            self._good_at = float("-inf")  # It answered, and that cannot be worked with.
        return problem

    def _beat(self) -> None:
        self._turned_at = time.monotonic()
        self._pulse = self.loop.call_later(PULSE_S, self._beat)


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Answers beside the services of a process; its watches end when the process leaves.

    The packaged servicer's do not, and would hold the server for the whole grace.
    """

    def __init__(self, health: Health) -> None:
        self._health = health

    async def Check(  # noqa: N802  gRPC's name.
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        """Answers the state of one name; NOT_FOUND for one that is not here."""
        if not self._health.knows(request.service):
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return _answer(await self._health.is_good(request.service))

    async def Watch(  # noqa: N802  gRPC's name.
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Streams the state of one name, and again when the process leaves."""
        del context
        health, name = self._health, request.service
        if not health.knows(name):
            yield _States(status=_States.SERVICE_UNKNOWN)
        else:
            yield _answer(await health.is_good(name))
            await health.changed.wait()
            yield _answer(await health.is_good(name))
        await health.stopping.wait()

    async def List(  # noqa: N802  gRPC's name.
        self, request: Any, context: Any
    ) -> Any:
        """Answers the state of every name."""
        del request, context
        health = self._health
        statuses = {name: _answer(await health.is_good(name)) for name in health.all_names()}
        # The stubs of the health package are older than this method.
        return health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def serving_health(health: Health, address: str | None) -> AsyncIterator[None]:
    """Answers probes at `address`, in plaintext, during the block; nowhere without an address.

    Threads answer, since an event loop that hangs could not say so. An address that cannot be
    listened on ends the process with exit code 2.
    """
    if address is None:
        yield
        return
    server = grpc.server(
        ThreadPoolExecutor(THREADS, "health"),
        options=[("grpc.so_reuseport", 0)],
        maximum_concurrent_rpcs=PROBES_MAX,
    )
    health_pb2_grpc.add_HealthServicer_to_server(_Probed(health), server)
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        exit_with(f"REELWORKS_HEALTH_ADDRESS: {address} cannot be listened on; is it taken?")
    server.start()
    try:
        yield
    finally:
        await asyncio.to_thread(server.stop(0).wait)


class _Probed(health_pb2_grpc.HealthServicer):
    """Answers on the port of its own: one name or all, and nobody who would stay."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def Check(  # noqa: N802  gRPC's name.
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> health_pb2.HealthCheckResponse:
        """Answers the state of one name; NOT_FOUND for one that is not here."""
        if not self._health.knows(request.service):
            context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return _answer(self._health.is_good_now(request.service))

    def List(  # noqa: N802  gRPC's name.
        self, request: Any, context: Any
    ) -> Any:
        """Answers the state of every name."""
        del request, context
        health = self._health
        statuses = {name: _answer(health.is_good_now(name)) for name in health.all_names()}
        return health_pb2.HealthListResponse(statuses=statuses)  # type: ignore[attr-defined]


def _answer(is_good: bool) -> health_pb2.HealthCheckResponse:
    return _States(status=_States.SERVING if is_good else _States.NOT_SERVING)
