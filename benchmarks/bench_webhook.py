"""Measures durable, verified webhooks against an HTTP handler that does nothing, in one run.

    python -m benchmarks.bench_webhook [--seconds 2] [--rounds 3] [--json]

Every variant is a server process of its own and gets the same requests from the same client, in
alternating rounds, so that what else the machine does falls on all of them.
"""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from sqlalchemy import func, select

from benchmarks.http_load import CONNECTIONS, Load
from services.runtime.callback import read_query, sign_query
from services.runtime.database import Database, open_database
from services.runtime.migrations import migrate
from services.runtime.telemetry import configure_log
from services.webhook import inbox as inbox_module
from services.webhook.forwarder import Timing
from services.webhook.inbox import Inbox, ReceivedEvent
from services.webhook.ingress import WEBHOOK_PATH, Ingress
from services.webhook.secret_source import SecretSource
from services.webhook.signature import Secret, verify
from services.webhook.tables import inbox
from tests.integration.webhook.harness import FakeGeneration, forwarding, free_port, serving
from tests.integration.webhook.harness import received as received_event
from tests.postgresql import running_postgresql

KEY = bytes(range(24))
CALLBACK_KEY = bytes(range(32))
BODY_BYTES = {"2 KiB": 2 * 1024, "64 KiB": 64 * 1024}
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
DRAINED_EVENTS = 3_000
DELIVERED_EVENTS = 400
DELIVERED_EVENTS_PER_S = 100

VARIANTS = {
    "noop": "(a) reads the body, answers 200",
    "verify": "(b) verification only",
    "sqlite": "(c) whole ingress, SQLite",
    "postgresql": "(d) whole ingress, PostgreSQL",
    "sqlite-single": "(e) a transaction a request, SQLite",
    "postgresql-single": "(e) a transaction a request, PostgreSQL",
}
DATABASES = ("sqlite", "postgresql")


# --- The servers --------------------------------------------------------------------------------


class _OneByOne(Inbox):
    """The control: each event in a database transaction of its own."""

    async def store(self, event: ReceivedEvent) -> bool:
        command = inbox_module._Store(inbox_module._row(event))  # noqa: SLF001
        async with self._database.write() as connection:
            (is_new,) = await inbox_module._write(connection, [command])  # noqa: SLF001
        return bool(is_new)


async def serve(variant: str, database_url: str) -> None:
    """Serves one variant on a port that it prints, until it is killed."""
    if variant in ("noop", "verify"):
        application = web.Application()
        application.router.add_post(WEBHOOK_PATH, _noop if variant == "noop" else _verify)
        runner = web.AppRunner(application, access_log=None, auto_decompress=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        port = runner.addresses[0][1]
        work = asyncio.sleep(float("inf"))
    else:
        kind = _OneByOne if variant.endswith("-single") else Inbox
        box = kind(open_database(database_url), asyncio.Event())
        ingress = Ingress(box, SecretSource((Secret(0, KEY),)), [CALLBACK_KEY], "local")
        port = await ingress.start("127.0.0.1", 0)
        work = box.run()
    print(port, flush=True)
    await work


async def _noop(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(text="stored\n")


async def _verify(request: web.Request) -> web.Response:
    read_query(request.raw_path.partition("?")[2], [CALLBACK_KEY], "local")
    body = await request.read()
    verify(body, request.headers.items(), (Secret(0, KEY),), datetime.now(UTC))
    return web.Response(text="stored\n")


@contextlib.contextmanager
def served(variant: str, database_url: str) -> Iterator[tuple[int, int]]:
    """Gives port and process id of a running variant."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "benchmarks.bench_webhook"),
            *("--serve", variant, "--database", database_url),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline()), process.pid
    finally:
        process.kill()
        process.wait()


def cpu_s(process_id: int) -> float:
    """Returns the processor time that a process has used."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
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
    rows_per_batch: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)


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


async def rows_per_batch(database_url: str) -> float:
    """Returns how many events shared a database transaction on average."""
    database = open_database(database_url)
    try:
        async with database.read() as connection:
            batches = func.count(inbox.c.stored_at.distinct())
            count, transactions = (await connection.execute(select(func.count(), batches))).one()
    finally:
        await database.close()
    return float(count / max(1, transactions))


async def measure_throughput(
    variant: str, body: bytes, seconds: float, databases: Databases, result: Throughput
) -> None:
    """Adds one round of a variant to its result."""
    database_url = databases.new(variant)
    with served(variant, database_url) as (port, process_id):
        warm_up = Load(body, requests(body, CONNECTIONS * 4))
        await warm_up.connect(port)
        await warm_up.flood(seconds / 4)
        # More than any variant can take; a flood that runs out of requests just ends earlier.
        load = Load(body, requests(body, int(seconds * (16_000 if len(body) < 10_000 else 5_000))))
        await load.connect(port)
        used_s = cpu_s(process_id)
        took_s = await load.flood(seconds)
        used_s = cpu_s(process_id) - used_s
    count = len(load.latencies_s)
    result.per_s.append(count / took_s)
    result.cpu_us.append(used_s / count * 1e6)
    result.p50_ms.append(statistics.median(load.latencies_s) * 1e3)
    result.p99_ms.append(statistics.quantiles(load.latencies_s, n=100)[98] * 1e3)
    if database_url:
        result.rows_per_batch.append(await rows_per_batch(database_url))


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
        return statistics.median(mine / noop for mine, noop in zip(of, to, strict=True))


async def measure(seconds: float, rounds: int, databases: Databases, console: Console) -> Report:
    """Measures everything, with a progress bar on `console`."""
    report = Report()
    steps = len(BODY_BYTES) * (len(VARIANTS) * rounds + len(DATABASES)) + len(DATABASES)
    columns = (TextColumn("{task.description:48}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=steps)
        for size, size_bytes in BODY_BYTES.items():
            body = json.dumps({"id": "x" * 26, "logs": "x" * (size_bytes - 51)}).encode()
            results = report.throughput[size] = {variant: Throughput() for variant in VARIANTS}
            for _ in range(rounds):
                for variant, name in VARIANTS.items():
                    progress.update(task, description=f"{name}, {size}")
                    await measure_throughput(variant, body, seconds, databases, results[variant])
                    progress.advance(task)
            report.acknowledgement[size] = {}
            for variant in DATABASES:
                progress.update(task, description=f"half load, {variant}, {size}")
                per_s = statistics.median(results[variant].per_s) / 2
                report.acknowledgement[size][variant] = await measure_acknowledgement(
                    variant, body, per_s, seconds * 2, databases
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
        table.add_column("variant")
        for heading in ("requests/s", "to (a)", "p50 ms", "p99 ms", "rows/batch", "CPU µs"):
            table.add_column(heading, justify="right")
        for variant, result in results.items():
            batch = result.rows_per_batch
            table.add_row(
                VARIANTS[variant],
                f"{statistics.median(result.per_s):,.0f}",
                f"{report.ratio(size, variant):.2f}",
                f"{statistics.median(result.p50_ms):.1f}",
                f"{statistics.median(result.p99_ms):.1f}",
                f"{statistics.median(batch):.1f}" if batch else "",
                f"{statistics.median(result.cpu_us):.0f}",
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
    for variant, delivery in report.delivery.items():
        console.print(
            f"{variant}: stored to delivered p50 {delivery.p50_ms:.1f} ms, "
            f"p99 {delivery.p99_ms:.1f} ms at {DELIVERED_EVENTS_PER_S} events/s; "
            f"after an outage {delivery.drained_per_s:,.0f} events/s"
        )


def main() -> None:
    """Measures and reports, or serves one variant for a measuring process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each variant")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--serve", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--database", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        configure_log("bench", "json")
        uvloop.run(serve(arguments.serve, arguments.database))
        return
    configure_log("bench", "console", "ERROR")
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder, running_postgresql(fsync=True) as postgresql:
        databases = Databases(Path(folder), postgresql)
        report = uvloop.run(measure(arguments.seconds, arguments.rounds, databases, console))
    if arguments.json:
        print(json.dumps(asdict(report)))
    else:
        show(report, Console())


if __name__ == "__main__":
    main()
