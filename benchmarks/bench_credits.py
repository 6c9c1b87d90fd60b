"""Measures the credits service: what the ledger costs a call, and what one hot account costs.

Servers run in processes and on databases of their own, with real files and real fsyncs; this
process is the client with 64 calls in flight. Servers and databases are taken in turns, round by
round, since only the ratios of figures of one run on one machine mean much. The ceiling is a call
that does nothing behind the same interceptors; the control is the same Reserve with a database
transaction for each.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import uvloop
from reelworks.credits.v1 import credits_pb2, credits_pb2_grpc
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.credits_server import SERVERS, serve
from services.credits.commands import OpenAccount, Reserve
from services.credits.store import CreditsStore
from services.runtime.database import open_database
from services.runtime.migrations import migrate
from services.runtime.telemetry import configure_log
from tests.postgresql import running_postgresql
from tests.serving import free_address

USERS = 10_000
CREDITS_EACH = 10**12
DEADLINE_S = 60.0
START_LIMIT_S = 60.0
IN_PROCESS_CALLERS = 512
SEEDED_AT_ONCE = 500

NOTHING = "nothing, behind the interceptors"
BARE = "nothing, without them"
MANY = f"Reserve, {USERS:,} users"
ONE = "Reserve, 1 user"
COMMIT = f"Commit, {USERS:,} users"
BALANCE = "GetBalance"
CONTROL = f"control: Reserve, {USERS:,} users"
CONTROL_ONE = "control: Reserve, 1 user"
HALF = f"Reserve at half load, {USERS:,} users"
IN_PROCESS = "Reserve, 1 user, without gRPC"
ROWS = (NOTHING, BARE, MANY, ONE, COMMIT, BALANCE, CONTROL, CONTROL_ONE, HALF, IN_PROCESS)
IN_PROCESS_KIND = "in process"
WITHOUT_DATABASE = ("nothing", "bare")
"""Servers that never look into their database."""
DATABASES = ("SQLite", "PostgreSQL")
WARM_UP_SHARE = 0.2
SLOW_SHARE = 0.25
"""The control is slow, and makes this part of the calls."""


@dataclass
class Figures:
    """What the rounds came to of one kind of call on one kind of database."""

    calls_per_s: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Median of the rounds, in calls a second."""
        return statistics.median(self.calls_per_s)

    def percentile_ms(self, percent: int) -> float | None:
        """Returns the latency that so many percent of the calls stay below, if it was measured."""
        if len(self.latencies_ms) < 2:
            return None
        return statistics.quantiles(self.latencies_ms, n=100)[percent - 1]


Results = dict[str, dict[str, Figures]]
"""By kind of database and kind of call."""
Urls = dict[tuple[str, str], str]
"""By kind of database and kind of server."""
Call = Callable[[int], Awaitable[Any]]


class Load:
    """Calls one server, and notes how long that takes."""

    def __init__(self, channel: grpc.aio.Channel, calls: int, in_flight: int) -> None:
        self.calls = calls
        self._in_flight = in_flight
        self._stub: Any = credits_pb2_grpc.CreditsServiceStub(channel)
        self._prefix = f"{time.time_ns():x}"

    def reserve(self, users: int, name: str = "") -> Call:
        """Returns what makes the reservation of a number."""
        return lambda number: self._stub.Reserve(
            credits_pb2.ReserveRequest(
                user_id=f"user{number % users}",
                reservation_id=f"{self._prefix}{name}-{number}",
                credits=20,
            ),
            timeout=DEADLINE_S,
        )

    def commit(self, users: int, name: str = "") -> Call:
        """Returns what commits the reservation of a number."""
        return lambda number: self._stub.Commit(
            credits_pb2.CommitRequest(
                user_id=f"user{number % users}", reservation_id=f"{self._prefix}{name}-{number}"
            ),
            timeout=DEADLINE_S,
        )

    def get_balance(self) -> Call:
        """Returns what reads a balance."""
        return lambda number: self._stub.GetBalance(
            credits_pb2.GetBalanceRequest(user_id=f"user{number % USERS}"), timeout=DEADLINE_S
        )

    async def at_full(self, call: Call, figures: Figures, share: float = 1.0) -> None:
        """Keeps so many calls in flight that the server is never idle."""
        count = int(self.calls * share)
        numbers = iter(range(count))

        async def caller() -> None:
            for number in numbers:
                began = time.perf_counter()
                await call(number)
                figures.latencies_ms.append((time.perf_counter() - began) * 1000)

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(self._in_flight)))
        figures.calls_per_s.append(count / (time.perf_counter() - began))

    async def at_rate(self, call: Call, figures: Figures, calls_per_s: float) -> None:
        """Makes calls when they are due, whether or not those before have been answered.

        Latency counts from when a call was due, or a server that stands still would look fast.
        """
        began = time.perf_counter()

        async def one(number: int) -> None:
            await call(number)
            late_s = time.perf_counter() - began - number / calls_per_s
            figures.latencies_ms.append(late_s * 1000)

        async with asyncio.TaskGroup() as tasks:
            for number in range(self.calls):
                if (early_s := began + number / calls_per_s - time.perf_counter()) > 0:
                    await asyncio.sleep(early_s)
                tasks.create_task(one(number))
        figures.calls_per_s.append(self.calls / (time.perf_counter() - began))


@contextlib.asynccontextmanager
async def served(kind: str, url: str) -> AsyncIterator[tuple[grpc.aio.Channel, int]]:
    """Gives a channel to a server of this kind, and the id of its process."""
    address = free_address()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.bench_credits",
        "--serve", kind, "--address", address, "--database-url", url,
        cwd=Path(__file__).parent.parent,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    # As plain as can be: the client shall not be what bounds the figures.
    channel = grpc.aio.insecure_channel(address)
    try:
        await asyncio.wait_for(channel.channel_ready(), START_LIMIT_S)
        yield channel, process.pid
    finally:
        await channel.close()
        process.terminate()
        await asyncio.wait_for(process.wait(), START_LIMIT_S)


@contextlib.asynccontextmanager
async def running_store(url: str) -> AsyncIterator[CreditsStore]:
    """Gives a store in this process."""
    database = open_database(url)
    store = CreditsStore(database)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(store.run())
            yield store
            store.close()
    finally:
        await database.close()


async def seed(url: str) -> None:
    """Opens the accounts of all users."""
    async with running_store(url) as store:
        for first in range(0, USERS, SEEDED_AT_ONCE):
            names = [f"user{number}" for number in range(first, first + SEEDED_AT_ONCE)]
            await asyncio.gather(*(store.submit(OpenAccount(name, CREDITS_EACH)) for name in names))


async def measure_in_process(url: str, calls: int, figures: Figures) -> None:
    """Makes reservations on one account by the store itself."""
    prefix, numbers = f"{time.time_ns():x}", iter(range(calls))

    async def caller(store: CreditsStore) -> None:
        for number in numbers:
            await store.submit(Reserve("user0", f"{prefix}-{number}", 20, timedelta(days=7)))

    async with running_store(url) as store:
        began = time.perf_counter()
        await asyncio.gather(*(caller(store) for _ in range(IN_PROCESS_CALLERS)))
        figures.calls_per_s.append(calls / (time.perf_counter() - began))


async def measure(kind: str, load: Load, figures: dict[str, Figures]) -> None:
    """Measures all that is asked of one kind of server."""
    match kind:
        case "nothing":
            await load.at_full(load.reserve(USERS), figures[NOTHING])
        case "bare":
            await load.at_full(load.reserve(USERS), figures[BARE])
        case "grouped":
            await load.at_full(load.reserve(USERS), figures[MANY])
            await load.at_full(load.reserve(1, "one"), figures[ONE])
            await load.at_full(load.commit(USERS), figures[COMMIT])
            await load.at_full(load.get_balance(), figures[BALANCE])
            half = figures[MANY].calls_per_s[-1] / 2
            await load.at_rate(load.reserve(USERS, "half"), figures[HALF], half)
        case "single":
            await load.at_full(load.reserve(USERS), figures[CONTROL], SLOW_SHARE)
            await load.at_full(load.reserve(1, "one"), figures[CONTROL_ONE], SLOW_SHARE)
        case _:
            raise ValueError(kind)


async def benchmark(urls: Urls, arguments: argparse.Namespace, progress: Progress) -> Results:
    """Takes all databases and servers in turns, `arguments.rounds` times."""
    names = list(dict.fromkeys(database for database, _ in urls))
    results: Results = {database: {row: Figures() for row in ROWS} for database in names}
    turns = [*itertools.product(range(arguments.rounds), names, [*SERVERS, IN_PROCESS_KIND])]
    task = progress.add_task("opening accounts", total=len(turns))
    for (_, kind), url in urls.items():
        if kind not in WITHOUT_DATABASE:
            await seed(url)
    async with contextlib.AsyncExitStack() as stack:
        # All at once and once for all, since starting one takes longer than a turn.
        keys = [key for key in urls if key[1] != IN_PROCESS_KIND]
        starting = [stack.enter_async_context(served(key[1], urls[key])) for key in keys]
        channels = dict(zip(keys, await asyncio.gather(*starting), strict=True))
        for number, database, kind in turns:
            progress.update(task, description=f"round {number + 1}: {database}, {kind}")
            figures = results[database]
            if kind == IN_PROCESS_KIND:
                url = urls[database, kind]
                await measure_in_process(url, arguments.calls * 3, figures[IN_PROCESS])
            else:
                channel, _ = channels[database, kind]
                load = Load(channel, arguments.calls, arguments.in_flight)
                await load.at_full(load.get_balance(), Figures(), WARM_UP_SHARE)
                await measure(kind, load, figures)
            progress.advance(task)
    return results


async def watch_memory(urls: Urls, arguments: argparse.Namespace, console: Console) -> None:
    """Prints the server's memory while it carries out many operations."""
    for (database, _), url in urls.items():
        await seed(url)
        async with served("grouped", url) as (channel, process):
            load = Load(channel, arguments.operations // 40, arguments.in_flight)
            for step in range(21):
                console.print(
                    f"{database:<10} {step * load.calls * 2:>9,} operations "
                    f"{resident_mib(process):7.1f} MiB"
                )
                if step < 20:
                    await load.at_full(load.reserve(USERS, str(step)), Figures())
                    await load.at_full(load.commit(USERS, str(step)), Figures())


def resident_mib(process: int) -> float:
    """Returns the memory that a process holds."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def databases(names: Sequence[str], kinds: Sequence[str]) -> Iterator[Urls]:
    """Gives a migrated one of each name for each kind of server; they survive a loss of power."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="reelworks-benchmark-"))
        urls: Urls = {}
        for name in names:
            match name:
                case "SQLite":
                    urls |= {(name, kind): f"sqlite:///{folder}/{kind}.sqlite3" for kind in kinds}
                case "PostgreSQL":
                    server = stack.enter_context(running_postgresql(fsync=True))
                    urls |= {(name, kind): server.url(server.create_database()) for kind in kinds}
                case _:
                    raise ValueError(name)
        for url in urls.values():
            migrate("credits", url)
        yield urls


def show(results: Results, console: Console) -> None:
    """Prints the figures beside each other, and the ratios that matter."""
    table = Table(title="CreditsService", caption="of ceiling: of a call that does nothing")
    for heading in ("database", "calls"):
        table.add_column(heading, no_wrap=True)
    for heading in ("calls/s", "of ceiling", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for database, rows in results.items():
        for row, figures in rows.items():
            latencies = [figures.percentile_ms(percent) for percent in (50, 99)]
            table.add_row(
                database,
                row,
                f"{figures.rate:,.0f}",
                f"{figures.rate / rows[NOTHING].rate:.2f}",
                *("" if latency is None else f"{latency:.1f}" for latency in latencies),
                end_section=row == ROWS[-1],
            )
    console.print(table)
    for database, found in ratios(results).items():
        console.print(f"{database}: " + ", ".join(f"{k} {v:.2f}" for k, v in found.items()))
    console.print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


def ratios(results: Results) -> dict[str, dict[str, float]]:
    """Returns medians of what each round came to, so that a slow minute weighs on both sides."""
    pairs = {
        "Reserve of ceiling": (MANY, NOTHING),
        "one user of many": (ONE, MANY),
        "Reserve of control": (MANY, CONTROL),
        "one user of its control": (ONE, CONTROL_ONE),
    }
    return {
        database: {
            name: statistics.median(
                x / y for x, y in zip(rows[over].calls_per_s, rows[under].calls_per_s, strict=True)
            )
            for name, (over, under) in pairs.items()
        }
        for database, rows in results.items()
    }


def as_json(results: Results) -> str:
    """Returns the figures for programs."""
    figures = {
        database: {
            row: {
                "calls_per_s": figures.calls_per_s,
                "p50_ms": figures.percentile_ms(50),
                "p99_ms": figures.percentile_ms(99),
            }
            for row, figures in rows.items()
        }
        for database, rows in results.items()
    }
    machine = {"load": os.getloadavg()[0], "processors": os.cpu_count()}
    return json.dumps({"figures": figures, "ratios": ratios(results), "machine": machine}, indent=2)


def main() -> None:
    """Measures, or serves what is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--databases", nargs="+", choices=DATABASES, default=DATABASES, help="kinds to measure on"
    )
    parser.add_argument("--calls", type=int, default=3000, help="calls of a kind in a round")
    parser.add_argument("--in-flight", type=int, default=64, help="calls at once")
    parser.add_argument("--rounds", type=int, default=3, help="how often all are taken in turn")
    parser.add_argument("--json", action="store_true", help="print figures for programs")
    parser.add_argument("--memory", action="store_true", help="watch the server's memory instead")
    parser.add_argument("--operations", type=int, default=200_000, help="of --memory")
    for hidden in ("--serve", "--address", "--database-url"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    configure_log("benchmark", level="ERROR")
    if arguments.serve:
        uvloop.run(serve(arguments.serve, arguments.address, arguments.database_url))
        return
    # A pipe has no width of its own.
    console = Console(stderr=arguments.json, width=None if sys.stdout.isatty() else 110)
    kinds = ["grouped"] if arguments.memory else [*SERVERS, IN_PROCESS_KIND]
    with databases(arguments.databases, kinds) as urls:
        if arguments.memory:
            uvloop.run(watch_memory(urls, arguments, console))
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
            results = uvloop.run(benchmark(urls, arguments, progress))
    if arguments.json:
        print(as_json(results))
    else:
        show(results, console)


if __name__ == "__main__":
    main()
