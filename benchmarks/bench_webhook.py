"""Measures durable, verified webhooks against an HTTP handler that does nothing, in one run.

    python -m benchmarks.bench_webhook [--seconds 2] [--rounds 3] [--json]

The load is wrk's (`apt-get install wrk`); without it a client in Python sends, which has a core to
itself and slows whatever is measured by what it takes from the other.

Every variant is a server process of its own and gets the same requests from the same client, in
alternating rounds, so that what else the machine does falls on all of them. (a), (c) and (d), whose
ratios are the goal, run in every round; (b) in the first; (e) and (f) in the first with small
bodies.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import func, select

from benchmarks.http_load import CONNECTIONS, Load, flood, has_wrk
from benchmarks.webhook_server import CALLBACK_KEY, GENERATION, KEY, VARIANTS, serve_and_tell
from services.runtime.callback import sign_query
from services.runtime.database import Database, open_database
from services.runtime.migrations import migrate
from services.runtime.telemetry import configure_log
from services.webhook.forwarder import Timing
from services.webhook.inbox import Inbox
from services.webhook.ingress import WEBHOOK_PATH
from services.webhook.tables import inbox
from tests.integration.webhook.harness import FakeGeneration, forwarding, free_port, serving
from tests.integration.webhook.harness import received as received_event
from tests.postgresql import running_postgresql

SMALL = "2 KiB"
BODY_BYTES = {SMALL: 2 * 1024, "64 KiB": 64 * 1024}
HEADS_PER_S = {SMALL: 14_000, "64 KiB": 4_000}
"""More than any variant stores; those that store nothing may see one again."""
WARM_UP_S = 1
HALF_LOAD_S = 2
WIDTH = 150
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
DRAINED_EVENTS = 2_000
DELIVERED_EVENTS = 300
DELIVERED_EVENTS_PER_S = 100
DATABASES = ("sqlite", "postgresql")
COMPARED = ("noop", *DATABASES)
"""What runs in every round."""
# Each server is a process of its own, forked from one that has imported everything: to start them
# one by one took as long as to measure them.
_PROCESSES = multiprocessing.get_context("forkserver")
MISSING = (
    "What (a) does not do takes the one thread of the event loop: (b) shows the share of checking; "
    "the rest is making rows, their JSON, the round trips of a batch, which more webhooks at once "
    "share, waking those who wait, and counting."
)
COSTS = ("CPU µs", "of the loop", "to (a)", "delivered/s", "refused")


# --- The servers --------------------------------------------------------------------------------


@contextlib.contextmanager
def served(
    variant: str, database_url: str = "", generation_port: int = 0
) -> Iterator[tuple[int, int]]:
    """Gives port and process id of a running variant."""
    told, tell = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(
        target=serve_and_tell, args=(tell, variant, database_url, str(generation_port))
    )
    process.start()
    tell.close()
    try:
        yield int(told.recv()), int(process.pid or 0)
    finally:
        process.kill()
        process.join()


def cpu_s(process_id: int, *, loop_only: bool = False) -> float:
    """Returns the processor time that a process, or only its event loop, has used."""
    file = f"/proc/{process_id}/task/{process_id}/stat" if loop_only else f"/proc/{process_id}/stat"
    fields = Path(file).read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


# --- The client ---------------------------------------------------------------------------------


def requests(body: bytes, count: int) -> list[bytes]:
    """Returns the heads of `count` genuine requests with distinct ids and the same body."""
    now = str(int(time.time()))
    query = sign_query(CALLBACK_KEY, "local", str(uuid.uuid4()), 1)
    heads = []
    for _ in range(count):
        webhook_id = f"msg_{uuid.uuid4().hex}"
        content = f"{webhook_id}.{now}.".encode() + body
        signature = base64.b64encode(hmac.digest(KEY, content, hashlib.sha256)).decode()
        heads.append(
            f"POST {WEBHOOK_PATH}?{query} HTTP/1.1\r\nHost: bench\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"webhook-id: {webhook_id}\r\nwebhook-timestamp: {now}\r\n"
            f"webhook-signature: v1,{signature}\r\n\r\n".encode()
        )
    return heads


# --- What is measured ---------------------------------------------------------------------------


@dataclass
class Throughput:
    """What one variant did with bodies of one size, in its rounds."""

    per_s: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    loop_us: list[float] = field(default_factory=list)
    delivered_per_s: list[float] = field(default_factory=list)
    rows_per_batch: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Acknowledgement:
    """How long acknowledgements took at a rate."""

    per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Delivery:
    """How long events took from being stored to being delivered."""

    p50_ms: float
    p99_ms: float
    drained_per_s: float


def merge(result: Throughput, round_: Throughput) -> None:
    """Adds a round to the result of its variant."""
    for one in fields(Throughput):
        getattr(result, one.name).extend(getattr(round_, one.name))


class Databases:
    """Makes databases for runs."""

    def __init__(self, folder: Path, postgresql: Any) -> None:
        self._folder = folder
        self._postgresql = postgresql
        self._template = postgresql.create_database()
        migrate("webhook", postgresql.url(self._template))
        self._file = folder / "template.sqlite3"
        migrate("webhook", f"sqlite:///{self._file}")

    def new(self, variant: str) -> str:
        """Returns the URL of an empty database for a variant, "" if it needs none."""
        if variant.startswith("sqlite"):
            return f"sqlite:///{shutil.copy(self._file, self._folder / uuid.uuid4().hex)}"
        if variant.startswith("postgresql"):
            return str(self._postgresql.url(self._postgresql.create_database(self._template)))
        return ""


async def stored(database_url: str) -> tuple[int, int, int]:
    """Returns how many events are stored, by how many database transactions, and how many went."""
    async with opened(database_url) as database, database.read() as connection:
        found = await connection.execute(
            select(
                func.count(),
                func.count(inbox.c.stored_at.distinct()),
                func.count(inbox.c.delivered_at),
            )
        )
        events, batches, delivered = found.one()
        return events, batches, delivered


async def measure_throughput(
    variant: str, body: bytes, heads: list[bytes], seconds: int, database_url: str
) -> Throughput:
    """Returns what one round of a variant comes to."""
    with contextlib.ExitStack() as stack:
        generation_port = 0
        if variant.endswith("-delivering"):
            generation_port, _ = stack.enter_context(served(GENERATION))
        port, process_id = stack.enter_context(served(variant, database_url, generation_port))
        # The warm-up takes its heads from the end, or they were stored before.
        await flood(port, body, heads[::-1], WARM_UP_S)
        before = cpu_s(process_id), cpu_s(process_id, loop_only=True)
        found = await flood(port, body, heads, seconds)
        after = cpu_s(process_id), cpu_s(process_id, loop_only=True)
    if database_url and found.count > len(heads):
        sys.exit("too few requests were prepared")
    # Where the disk is busy, a transaction a request may take longer than a round.
    count = max(1, found.count)
    round_ = Throughput(
        per_s=[found.count / found.took_s],
        cpu_us=[(after[0] - before[0]) / count * 1e6],
        loop_us=[(after[1] - before[1]) / count * 1e6],
        p50_ms=[found.p50_ms],
        p99_ms=[found.p99_ms],
        failed=[found.failed],
    )
    if database_url:
        events, batches, delivered = await stored(database_url)
        round_.rows_per_batch.append(events / max(1, batches))
        if generation_port:
            round_.delivered_per_s.append(delivered / (WARM_UP_S + seconds))
    return round_


async def measure_acknowledgement(
    variant: str, body: bytes, per_s: float, seconds: float, databases: Databases
) -> Acknowledgement:
    """Returns how long a variant's acknowledgements take at a rate."""
    with served(variant, databases.new(variant)) as (port, _):
        load = Load(body, requests(body, int(per_s * seconds)))
        await load.connect(port)
        await load.trickle(per_s, seconds)
    return Acknowledgement(
        per_s,
        statistics.median(load.latencies_s) * 1e3,
        statistics.quantiles(load.latencies_s, n=100)[98] * 1e3,
    )


async def measure_delivery(database_url: str) -> Delivery:
    """Measures with the forwarder in this process and a generation that only counts."""
    async with opened(database_url) as database:
        async with serving(FakeGeneration()) as port, forwarding(database, port, Timing()) as up:
            for _ in range(DELIVERED_EVENTS):
                await up.inbox.store(received_event())
                await asyncio.sleep(1 / DELIVERED_EVENTS_PER_S)
            await _all_delivered(database, DELIVERED_EVENTS)
        async with database.read() as connection:
            moments = await connection.execute(select(inbox.c.stored_at, inbox.c.delivered_at))
            waits_s = [(delivered - stored).total_seconds() for stored, delivered in moments]
        # An outage: events are stored while nobody delivers them.
        port = free_port()
        box = Inbox(database, asyncio.Event())
        writing = asyncio.create_task(box.run())
        for _ in range(DRAINED_EVENTS // 200):
            await asyncio.gather(*(box.store(received_event()) for _ in range(200)))
        box.close()
        await writing
        async with serving(FakeGeneration(), port):
            began = time.perf_counter()
            async with forwarding(database, port, Timing()):
                await _all_delivered(database, DELIVERED_EVENTS + DRAINED_EVENTS)
            drained_per_s = DRAINED_EVENTS / (time.perf_counter() - began)
    return Delivery(
        statistics.median(waits_s) * 1e3,
        statistics.quantiles(waits_s, n=100)[98] * 1e3,
        drained_per_s,
    )


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """Gives an open database."""
    database = open_database(url)
    try:
        yield database
    finally:
        await database.close()


async def _all_delivered(database: Database, count: int) -> None:
    delivered = select(func.count()).where(inbox.c.state == "DELIVERED")
    for _ in range(6_000):
        async with database.read() as connection:
            if (await connection.execute(delivered)).scalar_one() == count:
                return
        await asyncio.sleep(0.02)
    sys.exit("events were not delivered within two minutes")


# --- The report ---------------------------------------------------------------------------------


@dataclass
class Report:
    """Everything that was measured, by body size and variant or by database."""

    throughput: dict[str, dict[str, Throughput]] = field(default_factory=dict)
    acknowledgement: dict[str, dict[str, Acknowledgement]] = field(default_factory=dict)
    delivery: dict[str, Delivery] = field(default_factory=dict)

    def ratio(self, size: str, variant: str) -> float:
        """Returns the median over the rounds of a variant's rate to the no-op's beside it."""
        of, to = self.throughput[size][variant].per_s, self.throughput[size]["noop"].per_s
        return statistics.median(mine / noop for mine, noop in zip(of, to, strict=False))

    def loop_ratio(self, size: str, variant: str) -> float:
        """Returns the same of what the event loop would do if it had a processor to itself."""
        of, to = self.throughput[size][variant].loop_us, self.throughput[size]["noop"].loop_us
        return statistics.median(noop / mine for mine, noop in zip(of, to, strict=False))


def variants_of(size: str, round_number: int) -> list[str]:
    """Returns what runs in a round, the first of which is number 0."""
    if round_number > 0:
        return list(COMPARED)
    return list(VARIANTS) if size == SMALL else ["noop", "verify", *DATABASES]


async def measure(seconds: int, rounds: int, databases: Databases, console: Console) -> Report:
    """Measures everything, with a progress bar on `console`."""
    report = Report()
    runs = [variants_of(size, number) for size in BODY_BYTES for number in range(rounds)]
    steps = sum(map(len, runs)) + len(BODY_BYTES) * len(DATABASES) + len(DATABASES)
    columns = (TextColumn("{task.description:48}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=steps)
        for size, size_bytes in BODY_BYTES.items():
            body = json.dumps({"id": "x" * 26, "logs": "x" * (size_bytes - 51)}).encode()
            results = report.throughput[size] = {
                variant: Throughput() for variant in variants_of(size, 0)
            }
            # As many as the fastest stores; each run has a database that knows none of them.
            heads = requests(body, HEADS_PER_S[size] * (seconds + WARM_UP_S))
            for number in range(rounds):
                for variant in variants_of(size, number):
                    progress.update(task, description=f"{VARIANTS[variant]}, {size}")
                    database_url = databases.new(variant)
                    merge(
                        results[variant],
                        await measure_throughput(variant, body, heads, seconds, database_url),
                    )
                    progress.advance(task)
            report.acknowledgement[size] = {}
            for variant in DATABASES:
                progress.update(task, description=f"half load, {variant}, {size}")
                per_s = max(1.0, statistics.median(results[variant].per_s) / 2)
                report.acknowledgement[size][variant] = await measure_acknowledgement(
                    variant, body, per_s, HALF_LOAD_S, databases
                )
                progress.advance(task)
        for variant in DATABASES:
            progress.update(task, description=f"delivery, {variant}")
            report.delivery[variant] = await measure_delivery(databases.new(variant))
            progress.advance(task)
    return report


def show(report: Report, console: Console) -> None:
    """Prints the report as tables."""
    for size, results in report.throughput.items():
        table = Table(title=f"bodies of {size}, {CONNECTIONS} connections, as fast as they can")
        table.add_column("variant", no_wrap=True)
        for heading in ("requests/s", "to (a)", "p50 ms", "p99 ms", "rows/batch", *COSTS):
            table.add_column(heading, justify="right")
        for variant, result in results.items():
            batch, delivered = result.rows_per_batch, result.delivered_per_s
            table.add_row(
                VARIANTS[variant],
                f"{statistics.median(result.per_s):,.0f}",
                f"{report.ratio(size, variant):.2f}",
                f"{statistics.median(result.p50_ms):.1f}",
                f"{statistics.median(result.p99_ms):.1f}",
                f"{statistics.median(batch):.1f}" if batch else "",
                f"{statistics.median(result.cpu_us):.0f}",
                f"{statistics.median(result.loop_us):.0f}",
                f"{report.loop_ratio(size, variant):.2f}",
                f"{statistics.median(delivered):,.0f}" if delivered else "",
                str(sum(result.failed) or ""),
            )
        console.print(table)
    table = Table(title="at half of that load, and behind the door")
    for heading in ("database", "body", "requests/s", "p50 ms", "p99 ms"):
        table.add_column(heading, justify="right")
    for size, acknowledgements in report.acknowledgement.items():
        for variant, found in acknowledgements.items():
            rate = f"{found.per_s:,.0f}"
            table.add_row(variant, size, rate, f"{found.p50_ms:.1f}", f"{found.p99_ms:.1f}")
    console.print(table)
    console.print(MISSING)
    for variant, delivery in report.delivery.items():
        console.print(
            f"{variant}: stored to delivered p50 {delivery.p50_ms:.1f} ms, "
            f"p99 {delivery.p99_ms:.1f} ms at {DELIVERED_EVENTS_PER_S} events/s; "
            f"after an outage {delivery.drained_per_s:,.0f} events/s"
        )


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=2, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each variant")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    arguments = parser.parse_args()
    configure_log("bench", "console", "ERROR")
    _PROCESSES.set_forkserver_preload(["benchmarks.webhook_server"])
    console = Console(stderr=True)
    if not has_wrk():
        console.print("wrk is not installed (apt-get install wrk); a slower client takes its place")
    with tempfile.TemporaryDirectory() as folder, running_postgresql(fsync=True) as postgresql:
        databases = Databases(Path(folder), postgresql)
        report = uvloop.run(measure(arguments.seconds, arguments.rounds, databases, console))
    if arguments.json:
        print(json.dumps(asdict(report)))
    else:
        # Wide enough for a table, also where the output is no terminal.
        show(report, Console(width=max(WIDTH, console.width)))


if __name__ == "__main__":
    main()
