"""Measures the web service: what it adds to a create, and what live events cost.

    make bench-web                          tables
    .venv/bin/python -m benchmarks.bench_web --streams 1000 --json

* create: over REST against over gRPC, in turns: one after the other, and many at once;
* events: from the change of a generation, as its database says it, to a browser that reads the
  stream, with many open; beside it the same web service that watches the services once for each
  connection, and a handler of the same server that only sends events.

Processes, databases and connections are real; all run on this machine, and so do the browsers, so
only the ratios of figures of one run mean much. Nothing is submitted to the provider.
"""

import argparse
import asyncio
import contextlib
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.generation_ground import DATABASES, Databases, new_stack, opened_databases
from benchmarks.process_costs import cpu_s, memory_of
from benchmarks.web_clients import RestConnection, open_streams, stream_latencies_s
from benchmarks.web_server import EVENTS_PER_S, NAIVE, NOOP, WEB
from services.cli.stack import Stack, module_command
from services.cli.supervisor import ProcessPlan, Supervisor
from services.client.credits import CreditsClient
from services.client.generations import GenerationClient, Kind
from services.runtime.telemetry import configure_log
from services.web.development import development_key, development_token, person_named

ROOT = Path(__file__).parents[1]
FILES_MAX = 20_000
MANY = "1000000"
CREATE_PATH = "/api/generation/text-to-video"
WANTED = {
    "model": "t2v-14B",
    "resolution": "480p",
    "prompt": "a red fox running through fresh snow, early morning, low camera, slow motion",
}
AT_ONCE = 16
WARM_UP = 20
CREATING_USERS = 50
CREATES_PER_S = 25.0
CHANGES_PER_CREATE = 2
"""A generation begins, and then its credits are reserved."""
SETTLE_S = 2.0
WIDTH = 120


@dataclass
class Creates:
    """What creates of one way took, by round."""

    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    per_s: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Streams:
    """What open streams of one variant cost."""

    streams: int
    users: int
    opened_per_s: float
    kib_per_stream: float
    """Of the web process."""
    services_kib_per_stream: float
    """Of credits and generation together."""
    events: int
    """Of generations, that arrived while it was measured."""
    p50_ms: float
    p99_ms: float
    cpu_us_per_event: float
    """Of the web process, with all it did meanwhile."""
    services_cpu_us_per_event: float


@dataclass(frozen=True)
class Ground:
    """The services, and those who watch over them."""

    stack: Stack
    supervisor: Supervisor

    def token(self, user_id: str) -> str:
        """Returns what proves that somebody is a user."""
        person = person_named(user_id)
        assert person is not None
        key = development_key(self.stack.var / "keys" / "development_key")
        return development_token(key, person)

    @property
    def services(self) -> list[int]:
        """The processes behind the web service."""
        ids = self.supervisor.process_ids
        return [ids["credits"], ids["generation"]]

    @property
    def web(self) -> int:
        """The process of the web service."""
        return self.supervisor.process_ids["web"]


def prepare_stack(databases: Databases) -> Stack:
    """Returns services on new databases, without limits; no event loop may run in this thread."""
    urls = {
        f"{service.upper()}_DATABASE_URL": databases.make(service, f"{service}-web")
        for service in ("credits", "generation")
    }
    return new_stack(
        databases.folder,
        1.0,
        **urls,
        UNFINISHED_MAX="100000",
        STREAMS_MAX="10000",
        WATCHED_USERS_MAX="10000",
        WELCOME_BONUS_CREDITS=MANY,
        # Next to nothing is submitted, and nobody minds how long what waits will take.
        CREATES_PER_S="0.01",
        CREATES_BURST="1",
        DEADLINE_S="2500000",
        CREATES_PER_MINUTE=MANY,
        CALLS_PER_MINUTE=MANY,
        STREAMS_PER_USER="1000",
    )


@contextlib.asynccontextmanager
async def serving(stack: Stack, variant: str) -> AsyncIterator[Ground]:
    """Runs the services, and a variant of the web service before them."""
    plans = {plan.name: plan for stage in stack.stages() for plan in stage}
    web = plans["web"]
    events_per_s = {EVENTS_PER_S: str(CREATES_PER_S * CHANGES_PER_CREATE)}
    web = replace(
        web,
        command=module_command("benchmarks.web_server", variant),
        # The benchmarks are no part of what is installed.
        environment={**web.environment, **events_per_s, "PYTHONPATH": str(ROOT)},
    )
    stages: list[list[ProcessPlan]] = [[plans["credits"], plans["generation"]], [web]]
    supervisor = Supervisor(lambda _name, _line: None)
    async with supervisor.running(stages):
        yield Ground(stack, supervisor)


async def create_one(client: GenerationClient, user_id: str) -> None:
    """Creates a generation over gRPC."""
    model, resolution, prompt = WANTED["model"], WANTED["resolution"], WANTED["prompt"]
    await client.create(user_id, Kind.TEXT_TO_VIDEO, model, resolution, prompt)


# --- Creates ------------------------------------------------------------------------------------


async def measure_creates(
    ground: Ground, rounds: int, count: int, advance: Callable[[], None]
) -> dict[str, Creates]:
    """Returns what creates take over REST and over gRPC, in turns."""
    found = {"REST": Creates(), "gRPC": Creates()}
    users = [f"maker-{number}" for number in range(CREATING_USERS)]
    tokens = {user: ground.token(user) for user in users}
    addresses = ground.stack.addresses
    async with contextlib.AsyncExitStack() as stack:
        credits_client = await stack.enter_async_context(CreditsClient(addresses["credits"]))
        for user in users:
            await credits_client.open_account(user)
        client = await stack.enter_async_context(GenerationClient(addresses["generation"]))
        connections: list[RestConnection] = []

        async def connect() -> None:
            # Anew for each turn: the server ends what is quiet while the other way has its own.
            for connection in connections:
                connection.close()
            port = ground.stack.ports.web
            connections[:] = [await RestConnection.open(port) for _ in range(AT_ONCE)]

        async def over_rest(worker: int, number: int) -> None:
            token = tokens[users[number % len(users)]]
            await connections[worker].post(CREATE_PATH, token, WANTED)

        async def over_grpc(_: int, number: int) -> None:
            user = users[number % len(users)]
            await create_one(client, user)

        ways = {"REST": over_rest, "gRPC": over_grpc}
        for create in ways.values():
            await connect()
            await _timed(create, 2 * CREATING_USERS, AT_ONCE)
        for _ in range(rounds):
            for way, create in ways.items():
                await connect()
                latencies_s, _ = await _timed(create, count, 1)
                found[way].p50_ms.append(statistics.median(latencies_s) * 1e3)
                found[way].p99_ms.append(_p99(latencies_s) * 1e3)
            for way, create in ways.items():
                await connect()
                _, took_s = await _timed(create, count, AT_ONCE)
                found[way].per_s.append(count / took_s)
            advance()
        for connection in connections:
            connection.close()
    return found


async def _timed(
    create: Callable[[int, int], Awaitable[None]], count: int, at_once: int
) -> tuple[list[float], float]:
    """Returns how long each of `count` creates took, and all of them."""
    latencies_s: list[float] = []
    numbers = iter(range(count))

    async def work(worker: int) -> None:
        for number in numbers:
            began = time.perf_counter()
            await create(worker, number)
            latencies_s.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(work(worker) for worker in range(at_once)))
    return latencies_s, time.perf_counter() - began


# --- Streams ------------------------------------------------------------------------------------


async def measure_streams(
    ground: Ground, name: str, streams: int, users: int, window_s: float
) -> Streams:
    """Returns what streams cost while generations of their users change."""
    user_ids = [f"{name}-{number}" for number in range(users)]
    async with CreditsClient(ground.stack.addresses["credits"]) as credits_client:
        opening = iter(user_ids)

        async def open_accounts() -> None:
            for user_id in opening:
                await credits_client.open_account(user_id)

        await asyncio.gather(*(open_accounts() for _ in range(AT_ONCE)))
    tokens = [ground.token(user_id) for user_id in user_ids]
    port = ground.stack.ports.web
    # What the first streams make the processes load is not what a stream costs.
    for reader in await open_streams(port, tokens[:WARM_UP]):
        reader.close()
    await asyncio.sleep(SETTLE_S / 2)
    before, services_before = _resident_kib([ground.web]), _resident_kib(ground.services)
    began = time.perf_counter()
    readers = await open_streams(port, [tokens[n % users] for n in range(streams)])
    opened_s = time.perf_counter() - began
    await asyncio.sleep(SETTLE_S)
    grown = _resident_kib([ground.web]) - before
    services_grown = _resident_kib(ground.services) - services_before

    web_cpu, services_cpu = cpu_s(ground.web), sum(map(cpu_s, ground.services))
    since = time.time()
    async with GenerationClient(ground.stack.addresses["generation"]) as client:
        await _create_steadily(client, user_ids, window_s)
    await asyncio.sleep(SETTLE_S)
    web_cpu = cpu_s(ground.web) - web_cpu
    services_cpu = sum(map(cpu_s, ground.services)) - services_cpu
    latencies_s = stream_latencies_s(readers, since)
    for reader in readers:
        reader.close()
    events = max(1, len(latencies_s))
    return Streams(
        streams=streams,
        users=users,
        opened_per_s=streams / opened_s,
        kib_per_stream=grown / streams,
        services_kib_per_stream=services_grown / streams,
        events=len(latencies_s),
        p50_ms=statistics.median(latencies_s) * 1e3,
        p99_ms=_p99(latencies_s) * 1e3,
        cpu_us_per_event=web_cpu / events * 1e6,
        services_cpu_us_per_event=services_cpu / events * 1e6,
    )


async def _create_steadily(
    client: GenerationClient, user_ids: Sequence[str], window_s: float
) -> None:
    """Creates at a rate, whether the one before was answered or not."""
    began = time.perf_counter()
    async with asyncio.TaskGroup() as creating:
        for number in range(int(CREATES_PER_S * window_s)):
            await asyncio.sleep(max(0.0, began + number / CREATES_PER_S - time.perf_counter()))
            user_id = user_ids[number % len(user_ids)]
            creating.create_task(create_one(client, user_id))


def _resident_kib(processes: Sequence[int]) -> float:
    return sum(memory_of(process).resident for process in processes) * 1024


def _p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


# --- The report ---------------------------------------------------------------------------------


@dataclass
class Report:
    """Everything that was measured."""

    creates: dict[str, Creates] = field(default_factory=dict)
    streams: dict[str, Streams] = field(default_factory=dict)


async def measure(
    stack: Stack, arguments: argparse.Namespace, advance: Callable[[], None]
) -> Report:
    """Measures everything."""
    report = Report()
    streams, few = arguments.streams, max(1, arguments.streams // 10)
    runs = {
        "one stream a user": (WEB, streams),
        "ten streams a user": (WEB, few),
        "ten a user, a watch for each": (NAIVE, few),
        "a handler that only sends": (NOOP, few),
    }
    # A process of its own for each: one gives memory of streams that ended to those that follow.
    for number, (name, (variant, users)) in enumerate(runs.items()):
        async with serving(stack, variant) as ground:
            if number == 0:
                report.creates = await measure_creates(
                    ground, arguments.rounds, arguments.creates, advance
                )
            report.streams[name] = await measure_streams(
                ground, f"{variant}-{number}", streams, users, arguments.window
            )
            advance()
    return report


def show(report: Report, console: Console) -> None:
    """Prints the report as tables."""
    table = Table(title=f"create: one after the other, and {AT_ONCE} at once")
    table.add_column("way", no_wrap=True)
    for heading in ("p50 ms", "p99 ms", "creates/s"):
        table.add_column(heading, justify="right")
    for way, found in report.creates.items():
        p50_ms, p99_ms = statistics.median(found.p50_ms), statistics.median(found.p99_ms)
        table.add_row(
            way, f"{p50_ms:.1f}", f"{p99_ms:.1f}", f"{statistics.median(found.per_s):.0f}"
        )
    rest, grpc = report.creates["REST"], report.creates["gRPC"]
    table.add_row(
        "REST / gRPC",
        *(
            f"{statistics.median(x / y for x, y in zip(over, under, strict=True)):.2f}"
            for over, under in (
                (rest.p50_ms, grpc.p50_ms),
                (rest.p99_ms, grpc.p99_ms),
                (rest.per_s, grpc.per_s),
            )
        ),
    )
    console.print(table)
    streams = next(iter(report.streams.values())).streams
    table = Table(
        title=f"{streams:,} streams, {CREATES_PER_S:.0f} creates a second: memory of a stream, "
        "processor time of an event"
    )
    table.add_column("variant", no_wrap=True)
    for heading in (
        *("opened /s", "KiB of web", "KiB behind", "events"),
        *("p50 ms", "p99 ms", "µs of web", "µs behind"),
    ):
        table.add_column(heading, justify="right")
    for name, cost in report.streams.items():
        table.add_row(
            name,
            *(f"{cost.opened_per_s:.0f}", f"{cost.kib_per_stream:.0f}"),
            *(f"{cost.services_kib_per_stream:.0f}", f"{cost.events:,}"),
            *(f"{cost.p50_ms:.1f}", f"{cost.p99_ms:.1f}"),
            *(f"{cost.cpu_us_per_event:.0f}", f"{cost.services_cpu_us_per_event:.0f}"),
        )
    console.print(table)
    console.print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", choices=DATABASES, default=DATABASES[0])
    parser.add_argument("--streams", type=int, default=1000, help="open at once")
    parser.add_argument("--window", type=float, default=8.0, help="seconds in which things change")
    parser.add_argument("--creates", type=int, default=200, help="in a round, each way")
    parser.add_argument("--rounds", type=int, default=3, help="of creates")
    parser.add_argument("--json", action="store_true", help="print figures for programs")
    arguments = parser.parse_args()
    configure_log("benchmark", level="ERROR")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files_max = FILES_MAX if most == resource.RLIM_INFINITY else min(FILES_MAX, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files_max, most))
    # A pipe has no width of its own.
    console = Console(stderr=arguments.json, width=None if sys.stdout.isatty() else WIDTH)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        opened_databases(arguments.database) as databases,
        Progress(*columns, TimeElapsedColumn(), console=console) as progress,
    ):
        task = progress.add_task("web", total=arguments.rounds + 4)
        stack = prepare_stack(databases)
        report = uvloop.run(measure(stack, arguments, partial(progress.advance, task)))
    if arguments.json:
        machine = {"load": os.getloadavg()[0], "processors": os.cpu_count()}
        print(json.dumps({"figures": asdict(report), "machine": machine}, indent=2))
    else:
        show(report, console)


if __name__ == "__main__":
    main()
