"""Measures the credits service: one hot account against many, through real gRPC and real files.

All figures are of one run on one machine, taken in turns, and only their ratios mean much. The
limit is a server that answers the same messages without a database; the control is the same service
with one database transaction for each command.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import uvloop
from google.protobuf import wrappers_pb2
from reelworks.credits.v1 import credits_pb2, credits_pb2_grpc
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import event

from services.credits.requests import CHECKS
from services.credits.servicer import DOMAIN, SERVICE_NAME, CreditsServicer
from services.credits.store import BATCH_MAX, CreditsStore
from services.runtime.channel import connect, invoke
from services.runtime.database import open_database
from services.runtime.migrations import migrate
from services.runtime.process import leave_on_signals
from services.runtime.server import ServedService, Server, ServerSettings
from services.runtime.telemetry import configure_log
from tests.postgresql import running_postgresql
from tests.serving import free_address

ACCOUNTS = 1000
CREDITS_EACH = 10**9
DEADLINE_S = 60.0
START_LIMIT_S = 20.0
COUNT_METHOD = "/reelworks.benchmark.Counter/Count"


@dataclass(frozen=True)
class Scenario:
    """What is measured against what."""

    name: str
    server: str
    """`grouped`, `single` or `nothing`."""
    accounts: int
    share: float
    """Part of the pairs of calls that a round makes; slow ones make fewer."""


SCENARIOS = (
    Scenario("no-op (limit)", "nothing", 1, 1.0),
    Scenario("1, grouped", "grouped", 1, 1.0),
    Scenario(f"{ACCOUNTS:,}, grouped", "grouped", ACCOUNTS, 1.0),
    Scenario("1, ungrouped", "single", 1, 0.25),
    Scenario(f"{ACCOUNTS:,}, ungrouped", "single", ACCOUNTS, 0.25),
)


@dataclass
class Figures:
    """What the rounds of a scenario on a kind of database came to."""

    database: str
    scenario: str
    calls_per_s: list[float] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    calls: int = 0
    database_commits: int = 0

    @property
    def rate(self) -> float:
        """Median of the rounds, in calls a second."""
        return statistics.median(self.calls_per_s)

    def percentile_ms(self, percent: int) -> float:
        """Returns the latency that so many percent of the calls stay below."""
        return statistics.quantiles(self.latencies_ms, n=100)[percent - 1]


class NothingServicer(CreditsServicer):
    """Answers as the service would, without doing anything."""

    async def Reserve(self, request: Any, context: Any) -> credits_pb2.ReserveResponse:  # noqa: N802
        """Answers a reservation."""
        del context
        response = credits_pb2.ReserveResponse()
        response.reservation.user_id = request.user_id
        response.reservation.reservation_id = request.reservation_id
        response.balance.version = 1
        return response

    async def Commit(self, request: Any, context: Any) -> credits_pb2.CommitResponse:  # noqa: N802
        """Answers a reservation."""
        del context
        response = credits_pb2.CommitResponse()
        response.reservation.user_id = request.user_id
        response.balance.version = 1
        return response


async def serve(kind: str, address: str, url: str) -> None:
    """Serves one kind of server in a process of its own."""
    database = open_database(url)
    store = CreditsStore(database, batch_max=BATCH_MAX if kind == "grouped" else 1)
    commits = 0

    @event.listens_for(database.writer.sync_engine, "commit")
    def count(_connection: Any) -> None:
        nonlocal commits
        commits += 1

    async def tell(_request: Any, _context: Any) -> wrappers_pb2.Int64Value:
        return wrappers_pb2.Int64Value(value=commits)

    servicer_type = NothingServicer if kind == "nothing" else CreditsServicer
    servicer = servicer_type(store, CREDITS_EACH)

    def register(server: grpc.aio.Server) -> None:
        credits_pb2_grpc.add_CreditsServiceServicer_to_server(servicer, server)
        codecs: dict[str, Any] = {
            "request_deserializer": wrappers_pb2.Int64Value.FromString,
            "response_serializer": wrappers_pb2.Int64Value.SerializeToString,
        }
        service, _, method = COUNT_METHOD[1:].partition("/")
        handlers = {method: grpc.unary_unary_rpc_method_handler(tell, **codecs)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    leave = asyncio.Event()
    leave_on_signals(leave)
    server = Server(
        settings=ServerSettings(address=address, drain_s=0, grace_s=2, calls_max=10_000),
        domain=DOMAIN,
        services=[ServedService(SERVICE_NAME, register)],
        leave=leave,
        stopping=asyncio.Event(),
        checks=CHECKS,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.run())
        await server.serve()
        store.close()
    await database.close()


@contextlib.asynccontextmanager
async def served(kind: str, url: str) -> AsyncIterator[grpc.aio.Channel]:
    """Gives a channel to a server of this kind."""
    address = free_address()
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--serve", kind, "--address", address, "--database-url", url,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    channel = connect(address, {"Count": START_LIMIT_S})
    try:
        await commits_of(channel, wait_for_ready=True)
        yield channel
    finally:
        await channel.close()
        process.terminate()
        await asyncio.wait_for(process.wait(), START_LIMIT_S)


async def commits_of(channel: grpc.aio.Channel, *, wait_for_ready: bool = False) -> int:
    """Returns how many database transactions the server has committed."""
    count = channel.unary_unary(
        COUNT_METHOD,
        request_serializer=wrappers_pb2.Int64Value.SerializeToString,
        response_deserializer=wrappers_pb2.Int64Value.FromString,
    )
    answer = await count(wrappers_pb2.Int64Value(), wait_for_ready=wait_for_ready)
    return int(answer.value)


async def measure(
    channel: grpc.aio.Channel, scenario: Scenario, figures: Figures, pairs: int, callers: int
) -> None:
    """Makes so many pairs of Reserve and Commit, by so many callers at once."""
    stub: Any = credits_pb2_grpc.CreditsServiceStub(channel)
    users = [f"user{number}" for number in range(scenario.accounts)]
    if scenario.server != "nothing":
        for first in range(0, len(users), 100):
            await asyncio.gather(
                *(
                    invoke(stub.OpenAccount, credits_pb2.OpenAccountRequest(user_id=user))
                    for user in users[first : first + 100]
                )
            )
    numbers = iter(range(pairs))
    prefix = f"{time.time_ns():x}"

    async def timed(method: Any, request: Any) -> None:
        began = time.perf_counter()
        await method(request, timeout=DEADLINE_S)
        figures.latencies_ms.append((time.perf_counter() - began) * 1000)

    async def call() -> None:
        for number in numbers:
            ids: dict[str, Any] = {
                "user_id": users[number % len(users)],
                "reservation_id": f"{prefix}-{number}",
            }
            await timed(stub.Reserve, credits_pb2.ReserveRequest(credits=20, **ids))
            await timed(stub.Commit, credits_pb2.CommitRequest(**ids))

    commits_before = await commits_of(channel)
    began = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    figures.calls_per_s.append(2 * pairs / (time.perf_counter() - began))
    figures.calls += 2 * pairs
    figures.database_commits += await commits_of(channel) - commits_before


@contextlib.contextmanager
def databases(*, postgresql: bool) -> Iterator[dict[str, list[str]]]:
    """Gives, for each kind of database, a migrated one for each scenario; all lose nothing."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="reelworks-benchmark-"))
        urls = {"SQLite": [f"sqlite:///{folder}/{n}.sqlite3" for n in range(len(SCENARIOS))]}
        if postgresql:
            server = stack.enter_context(running_postgresql(fsync=True))
            urls["PostgreSQL"] = [server.url(server.create_database()) for _ in SCENARIOS]
        for url in (url for kind in urls.values() for url in kind):
            migrate("credits", url)
        yield urls


async def benchmark(
    urls: dict[str, list[str]], arguments: argparse.Namespace, progress: Progress
) -> list[Figures]:
    """Runs all scenarios in turns, `arguments.rounds` times."""
    results = {
        (database, scenario.name): Figures(database, scenario.name)
        for database in urls
        for scenario in SCENARIOS
    }
    task = progress.add_task("starting", total=arguments.rounds * len(results))
    for number in range(arguments.rounds):
        for database, of_scenarios in urls.items():
            for scenario, url in zip(SCENARIOS, of_scenarios, strict=True):
                progress.update(
                    task, description=f"round {number + 1}: {database}, {scenario.name}"
                )
                async with served(scenario.server, url) as channel:
                    await measure(
                        channel,
                        scenario,
                        results[database, scenario.name],
                        int(arguments.pairs * scenario.share),
                        arguments.callers,
                    )
                progress.advance(task)
    return list(results.values())


def show(results: list[Figures], console: Console) -> None:
    """Prints the figures beside each other."""
    table = Table(title="Reserve + Commit through gRPC", caption="commits: of SQL, for each call")
    for heading in ("database", "accounts"):
        table.add_column(heading, no_wrap=True)
    for heading in ("calls/s", "of limit", "of 1,000", "p50 ms", "p99 ms", "commits"):
        table.add_column(heading, justify="right")
    for figures in results:
        limit, spread = (
            next(f for f in results if (f.database, f.scenario) == (figures.database, s.name))
            for s in (SCENARIOS[0], SCENARIOS[2])
        )
        table.add_row(
            figures.database,
            figures.scenario,
            f"{figures.rate:,.0f}",
            f"{figures.rate / limit.rate:.2f}",
            f"{figures.rate / spread.rate:.2f}",
            f"{figures.percentile_ms(50):.1f}",
            f"{figures.percentile_ms(99):.0f}",
            f"{figures.database_commits / figures.calls:.3f}",
            end_section=figures.scenario == SCENARIOS[-1].name,
        )
    console.print(table)


def as_json(results: list[Figures]) -> str:
    """Returns the figures for programs."""
    return json.dumps(
        [
            {
                **{k: v for k, v in asdict(f).items() if k != "latencies_ms"},
                "p50_ms": f.percentile_ms(50),
                "p99_ms": f.percentile_ms(99),
            }
            for f in results
        ],
        indent=2,
    )


def main() -> None:
    """Measures, or serves what is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgresql", action="store_true", help="measure on PostgreSQL too")
    parser.add_argument("--pairs", type=int, default=2000, help="pairs of calls a round")
    parser.add_argument("--callers", type=int, default=64, help="callers at once")
    parser.add_argument("--rounds", type=int, default=3, help="how often all are taken in turn")
    parser.add_argument("--json", action="store_true", help="print figures for programs")
    for hidden in ("--serve", "--address", "--database-url"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    configure_log("benchmark", level="ERROR")
    if arguments.serve:
        uvloop.run(serve(arguments.serve, arguments.address, arguments.database_url))
        return
    # A pipe has no width of its own.
    console = Console(stderr=arguments.json, width=None if sys.stdout.isatty() else 100)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        databases(postgresql=arguments.postgresql) as urls,
        Progress(*columns, TimeElapsedColumn(), console=console) as progress,
    ):
        results = asyncio.run(benchmark(urls, arguments, progress))
    if arguments.json:
        print(as_json(results))
    else:
        show(results, console)


if __name__ == "__main__":
    main()
