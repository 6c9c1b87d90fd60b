"""Measures what it costs to find, claim and write back work, beside many generations that ended."""

import asyncio
import contextlib
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

from benchmarks.generation_rows import PROVIDER_MODEL, insert, remove, running, waiting
from benchmarks.process_costs import cpu_s
from services.generation.claims import Attempt, Claims
from services.generation.commands import Happen
from services.generation.events import PredictionSeen, SubmitDeferred
from services.generation.gate import GatePolicy
from services.generation.prediction import Prediction
from services.generation.state import Generation
from services.generation.store import Store
from services.generation.timing import Timing
from services.runtime.database import Database, open_database

__all__ = ["CREATE", "POLL", "Bench", "Costs", "measure_claims", "opened_bench"]

POLL, CREATE = "a poll's", "a create's"
AT_ONCE = 16
"""As many as a worker has slots for, of polls and of creates."""
LEASE_S = 60.0
CYCLES = 25
"""Of a turn."""
_TIMING = Timing(poll_s=1e-6)
"""What was written back is due again at once."""
_POLICY = GatePolicy(rate_per_s=1e6, burst=1000, in_flight_max=1000)


@dataclass
class Costs:
    """What the turns came to: milliseconds for a generation, of the clock and of processors."""

    elapsed_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """One database and what works on it."""

    database: Database
    claims: Claims
    store: Store
    servers: Callable[[], Collection[int]]
    """Finds the processes of the database's server that work for us."""

    def cpu_s(self) -> float:
        """Returns the processor time of this process and of the database's server."""
        return time.process_time() + sum(map(cpu_s, self.servers()))

    async def poll(self) -> int:
        """Does what a worker does for predictions to look at, but for the look itself."""
        work = await self.claims.look()
        claimed = await self.claims.claim_due(work.due, AT_ONCE, LEASE_S)
        await asyncio.gather(*(self._write_back(one, _seen(one)) for one in claimed))
        return len(claimed)

    async def create(self) -> int:
        """Does what a worker does for generations to submit, but for the create itself."""
        work = await self.claims.look()
        assert work.ready, "some generations always wait"
        claimed = await self.claims.claim_ready(AT_ONCE, _attempt)
        await asyncio.gather(
            *(self._write_back(one, SubmitDeferred(one.attempt)) for one, _ in claimed)
        )
        return len(claimed)

    @contextlib.asynccontextmanager
    async def busy(self, kind: str) -> AsyncIterator[None]:
        """Has work of a kind while the block runs."""
        now, keys = datetime.now(UTC), [str(uuid.uuid4()) for _ in range(AT_ONCE)]
        work = [
            running(key, f"job-{key}", now, now) if kind == POLL else waiting(key, now)
            for key in keys
        ]
        await insert(self.database, work)
        yield
        await remove(self.database, keys)

    async def _write_back(
        self, generation: Generation, event: PredictionSeen | SubmitDeferred
    ) -> None:
        await self.store.happen(Happen(generation.generation_id, event, generation.fence))


@contextlib.asynccontextmanager
async def opened_bench(
    url: str, servers: Callable[[], Collection[int]] = lambda: ()
) -> AsyncIterator[Bench]:
    """Gives a bench on a database."""
    database = open_database(url)
    store = Store(database, _TIMING, lambda _generation: None)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(store.writer.run())
            yield Bench(database, Claims(database, _TIMING, _POLICY, "benchmark"), store, servers)
            store.writer.close()
    finally:
        await database.close()


async def measure_claims(
    few: Bench, many: Bench, turns: int, advance: Callable[[], None]
) -> dict[str, tuple[Costs, Costs]]:
    """Returns the costs on both databases, taken in turns so that a slow minute weighs on both."""
    found = {POLL: (Costs(), Costs()), CREATE: (Costs(), Costs())}
    for turn in range(-1, turns):
        for kind, costs in found.items():
            pairs = list(zip((few, many), costs, strict=True))
            # Neither always comes first, and the first turn warms up.
            for bench, noted in pairs if turn % 2 else reversed(pairs):
                await _take_turn(bench, kind, noted if turn >= 0 else Costs())
        advance()
    return found


async def _take_turn(bench: Bench, kind: str, costs: Costs) -> None:
    cycle = bench.poll if kind == POLL else bench.create
    elapsed_ms = []
    async with bench.busy(kind):
        cpu_before = bench.cpu_s()
        for _ in range(CYCLES):
            began = time.perf_counter()
            count = await cycle()
            elapsed_ms.append((time.perf_counter() - began) * 1000 / AT_ONCE)
            if count != AT_ONCE:
                raise RuntimeError(f"{count} were claimed instead of {AT_ONCE}")
        cpu_ms = (bench.cpu_s() - cpu_before) * 1000
    costs.elapsed_ms.append(statistics.median(elapsed_ms))
    costs.cpu_ms.append(cpu_ms / CYCLES / AT_ONCE)


def _seen(generation: Generation) -> PredictionSeen:
    assert generation.job_id is not None, "it runs"
    return PredictionSeen(Prediction(generation.job_id, generation.provider_status or ""))


def _attempt(generation: Generation) -> Attempt:
    return Attempt(generation.generation_id, generation.attempt, PROVIDER_MODEL, "{}", "", 1)
