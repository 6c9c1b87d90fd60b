"""Measures what the generation service costs while many predictions are under way.

The generations are rows that were written beforehand; their predictions were really created at the
simulator, which lets them boot for longer than anything here takes. The services run side by side,
each on a database of its own: one without generations, one with many of which none is to be looked
at yet, and one that looks at its many as often as it may.
"""

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx

from benchmarks.generation_ground import Databases, generation_plan, limitless, new_stack
from benchmarks.generation_rows import PROVIDER_MODEL, insert, running
from benchmarks.process_costs import Memory, cpu_s, memory_of
from services.cli.stack import SIMULATOR_TOKEN
from services.cli.supervisor import Supervisor
from services.runtime.database import open_database
from services.runtime.migrations import migrate
from services.simulator.client import SimulatorControl
from tests.serving import free_address

__all__ = ["EMPTY", "POLLING", "QUIET", "Cost", "Places", "measure_in_flight", "prepare_places"]

EMPTY, QUIET, POLLING = "none", "waiting", "looked at"
SPEED = 0.01
POLLS_PER_S = 5
"""What the service allows itself by default."""
SETTLE_S = 10.0
"""From the start of the services until they have loaded what they load once."""
CREATES_AT_ONCE = 16
CREATE_S = 60.0
INSERTED_AT_ONCE = 1000

Places = Mapping[tuple[str, str], str]
"""URLs of databases, by their kind and by what the service has to do."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a service cost over a while."""

    cpu_percent: float
    """Of one processor."""
    memory: Memory
    """At the end."""
    looks_per_s: float = 0.0
    """How often it asked the provider how a prediction is."""


def prepare_places(databases: Mapping[str, Databases]) -> Places:
    """Returns empty databases for all services; no event loop may run in this thread."""
    return {
        (kind, state): made.make("generation", f"in-flight-{number}")
        for kind, made in databases.items()
        for number, state in enumerate((EMPTY, QUIET, POLLING))
    }


async def measure_in_flight(
    places: Places, var: Path, count: int, window_s: float, advance: Callable[[int], None]
) -> dict[tuple[str, str], Cost]:
    """Returns the costs in each place, measured at the same time, with files in the folder `var`.

    `advance` is told of every prediction that was created.
    """
    stack = new_stack(var, SPEED)
    simulator, credits_service, *_ = (plan for stage in stack.stages() for plan in stage)
    await asyncio.to_thread(migrate, "credits", stack.settings("credits")["REELWORKS_DATABASE_URL"])
    names = {place: f"generation {number}" for number, place in enumerate(places)}
    plans = [
        generation_plan(
            stack, names[place], free_address(), DATABASE_URL=url, IN_FLIGHT_MAX=str(count)
        )
        for place, url in places.items()
    ]
    quiet = Supervisor(lambda _name, _line: None)
    supervisor = Supervisor(lambda _name, _line: None)
    async with quiet.running([[limitless(simulator), credits_service]]):
        jobs = await _create_predictions(stack.addresses["simulator"], count, advance)
        for (_, state), url in places.items():
            if state != EMPTY:
                await _insert(url, jobs, polled=state == POLLING)
        async with (
            SimulatorControl(stack.addresses["control"]) as control,
            supervisor.running([plans]),
        ):
            await asyncio.sleep(SETTLE_S)
            processes = {place: supervisor.process_ids[name] for place, name in names.items()}
            return await _measure(processes, control, window_s)


async def _measure(
    processes: Mapping[tuple[str, str], int], control: SimulatorControl, window_s: float
) -> dict[tuple[str, str], Cost]:
    began, began_at = time.monotonic(), time.time()
    before = {place: cpu_s(process) for place, process in processes.items()}
    await asyncio.sleep(window_s)
    seconds = time.monotonic() - began
    looks = sum(
        entry["method"] == "GET" and entry["begun_at"] >= began_at
        for entry in await control.requests()
    )
    polling = sum(state == POLLING for _, state in processes)
    return {
        place: Cost(
            100 * (cpu_s(process) - before[place]) / seconds,
            memory_of(process),
            looks / polling / seconds if place[1] == POLLING else 0.0,
        )
        for place, process in processes.items()
    }


async def _create_predictions(
    address: str, count: int, advance: Callable[[int], None]
) -> Sequence[str]:
    """Returns the ids of so many new predictions."""
    jobs: list[str] = []
    numbers = iter(range(count))
    headers = {"Authorization": f"Bearer {SIMULATOR_TOKEN}"}

    async def create(http: httpx.AsyncClient) -> None:
        for _ in numbers:
            answer = await http.post(
                f"/v1/models/{PROVIDER_MODEL}/predictions", json={"input": {"prompt": "a fox"}}
            )
            answer.raise_for_status()
            jobs.append(answer.json()["id"])
            advance(1)

    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=CREATE_S) as http:
        await asyncio.gather(*(create(http) for _ in range(CREATES_AT_ONCE)))
    return jobs


async def _insert(url: str, jobs: Sequence[str], *, polled: bool) -> None:
    """Writes a generation for each prediction, to be looked at in turn, or in half an hour."""
    now = datetime.now(UTC)
    first = now if polled else now + timedelta(minutes=30)
    rows = [
        running(str(uuid.uuid4()), job, now, first + timedelta(seconds=number / POLLS_PER_S))
        for number, job in enumerate(jobs)
    ]
    database = open_database(url)
    try:
        for start in range(0, len(rows), INSERTED_AT_ONCE):
            await insert(database, rows[start : start + INSERTED_AT_ONCE])
    finally:
        await database.close()
