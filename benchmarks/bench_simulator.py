"""Measures the stand-in for Replicate, so that nobody takes its limits for the product's.

    python -m benchmarks.bench_simulator [--predictions 10000] [--json]

* creates and reads a second, beside a process whose handler does nothing, from the same client;
* memory with so many predictions in flight, and how late the webhooks of others are meanwhile;
* memory while as many come and go, three times over. On two idle cores it all takes five minutes.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from aiohttp import ClientSession, TCPConnector, web
from rich.console import Console
from rich.table import Table

from services.simulator.client import SimulatorControl
from services.simulator.faults.actions import StuckStarting

CREATE = "/v1/models/wan-video/wan-2.1-1.3b/predictions"
HEADERS = {"Authorization": "Bearer r8_simulator"}
CONNECTIONS = 32
READS = 3_000
LISTS = 20
TURNS = 3
RETENTION_S = 2.0
PACED, PACED_PER_S = 100, 20.0
LATEST_S = 60.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SWITCHES = ("creates_per_minute=10000000", "calls_per_minute=10000000")


@dataclass
class Figures:
    """What was measured."""

    predictions: int
    noop_per_s: float = 0.0
    creates_per_s: float = 0.0
    create_cpu_ms: float = 0.0
    """Processor time of a create, which other work on the machine changes less."""
    reads_per_s: float = 0.0
    list_page_ms: float = 0.0
    """Median time of a page of 100 while all predictions are in flight."""
    empty_mib: float = 0.0
    in_flight_mib: float = 0.0
    turned_over_mib: list[float] = field(default_factory=list)
    """After each set of predictions that succeeded and lost its data."""
    finished_per_s: float = 0.0
    """Predictions a second from create to the end of the last, videos and webhooks included."""
    webhook_late_ms_p50: float = 0.0
    """From the moment that a `start` event tells until it arrived, all others being in flight."""
    webhook_late_ms_p99: float = 0.0


@dataclass(frozen=True)
class Server:
    """A running process."""

    address: str
    control: str
    process_id: int

    @property
    def memory_mib(self) -> float:
        """Resident memory, without that of the workers that make videos."""
        status = Path(f"/proc/{self.process_id}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    @property
    def cpu_s(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self.process_id}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


@contextlib.contextmanager
def running(*command: str) -> Iterator[Server]:
    """Runs a process that prints its addresses as JSON."""
    with subprocess.Popen(
        [sys.executable, "-m", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            addresses = json.loads(process.stdout.readline())
            yield Server(addresses["api"], addresses.get("control", ""), process.pid)
        finally:
            process.terminate()


def simulator(*options: str) -> contextlib.AbstractContextManager[Server]:
    """Runs a simulator without limits on free ports."""
    ports = [f"--{name}-port=0" for name in ("api", "delivery", "control")]
    switches = [f"--switch={switch}" for switch in SWITCHES]
    return running("services.simulator", "--video=stamp", *ports, *switches, *options)


@contextlib.asynccontextmanager
async def receiver(lateness_ms: asyncio.Queue[float]) -> AsyncIterator[str]:
    """Takes webhooks and tells how late each `start` is; yields the address."""

    async def take(request: web.Request) -> web.Response:
        body = await request.json()
        if body["status"] == "processing":
            began_at = datetime.fromisoformat(body["started_at"]).timestamp()
            lateness_ms.put_nowait((time.time() - began_at) * 1000)
        return web.Response()

    application = web.Application()
    application.router.add_post("/hook", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    await runner.cleanup()


def create_body(number: int, webhook: str | None = None) -> bytes:
    """Returns the body of a create as the product sends it."""
    body: dict[str, object] = {"input": {"prompt": f"A lake, the {number}th", "seed": number}}
    if webhook is not None:
        body |= {"webhook": webhook, "webhook_events_filter": ["start", "completed"]}
    return json.dumps(body).encode()


async def per_second(
    session: ClientSession, method: str, requests: Sequence[tuple[str, bytes | None]]
) -> tuple[float, list[bytes]]:
    """Makes all requests over the session's connections; returns how many a second, and answers."""
    left, answers = iter(requests), list[bytes]()

    async def work() -> None:
        for address, body in left:
            async with session.request(method, address, data=body, headers=HEADERS) as answer:
                answer.raise_for_status()
                answers.append(await answer.read())

    begun_at = time.monotonic()
    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return len(requests) / (time.monotonic() - begun_at), answers


async def measure_in_flight(session: ClientSession, figures: Figures) -> None:
    """Creates predictions that do not end, and reads them."""
    bodies = [create_body(number) for number in range(figures.predictions)]
    with running("benchmarks.bench_simulator", "--serve-nothing") as nothing:
        calls = [(nothing.address + CREATE, body) for body in bodies]
        figures.noop_per_s, _ = await per_second(session, "POST", calls)
    with simulator("--speed=10") as server:
        async with SimulatorControl(server.control) as control:
            await control.fault(StuckStarting(), times=figures.predictions)
        figures.empty_mib, cpu_s = server.memory_mib, server.cpu_s
        calls = [(server.address + CREATE, body) for body in bodies]
        figures.creates_per_s, answers = await per_second(session, "POST", calls)
        figures.create_cpu_ms = (server.cpu_s - cpu_s) * 1000 / figures.predictions
        figures.in_flight_mib = server.memory_mib
        ids = [json.loads(answer)["id"] for answer in answers[:READS]]
        reads = [(f"{server.address}/v1/predictions/{one}", None) for one in ids]
        figures.reads_per_s, _ = await per_second(session, "GET", reads)
        times = []
        for _ in range(LISTS):
            begun_at = time.monotonic()
            await per_second(session, "GET", [(f"{server.address}/v1/predictions", None)])
            times.append((time.monotonic() - begun_at) * 1000)
        figures.list_page_ms = statistics.median(times)
        await measure_lateness(session, server, figures)


async def measure_lateness(session: ClientSession, server: Server, figures: Figures) -> None:
    """Creates some more, at a pace that leaves the simulator time, and awaits their webhooks."""
    queue = asyncio.Queue[float]()
    async with receiver(queue) as hook:
        for number in range(PACED):
            call = (server.address + CREATE, create_body(number, hook))
            await per_second(session, "POST", [call])
            await asyncio.sleep(1 / PACED_PER_S)
        async with asyncio.timeout(LATEST_S):
            lateness_ms = [await queue.get() for _ in range(PACED)]
    cuts = statistics.quantiles(lateness_ms, n=100)
    figures.webhook_late_ms_p50, figures.webhook_late_ms_p99 = cuts[49], cuts[98]


async def measure_turnover(session: ClientSession, figures: Figures) -> None:
    """Lets predictions come, succeed, send their webhooks and lose their data."""
    rates = []
    with simulator("--speed=1000", f"--retention-s={RETENTION_S}") as server:
        async with receiver(asyncio.Queue()) as hook:
            for _ in range(TURNS):
                bodies = [create_body(number, hook) for number in range(figures.predictions)]
                begun_at = time.monotonic()
                calls = [(server.address + CREATE, body) for body in bodies]
                _, answers = await per_second(session, "POST", calls)
                for answer in answers:
                    await ended(
                        session, f"{server.address}/v1/predictions/{json.loads(answer)['id']}"
                    )
                rates.append(figures.predictions / (time.monotonic() - begun_at))
                await asyncio.sleep(2 * RETENTION_S)
                figures.turned_over_mib.append(server.memory_mib)
    figures.finished_per_s = statistics.median(rates)


async def ended(session: ClientSession, address: str) -> None:
    """Returns once a prediction has ended; one that is forgotten already has."""
    while True:
        async with session.get(address, headers=HEADERS) as answer:
            if answer.status == 404 or (await answer.json())["status"] == "succeeded":
                return
        await asyncio.sleep(0.05)


async def measure(predictions: int) -> Figures:
    """Returns all figures of one run."""
    figures = Figures(predictions)
    async with ClientSession(connector=TCPConnector(limit=CONNECTIONS)) as session:
        await measure_in_flight(session, figures)
        await measure_turnover(session, figures)
    return figures


def show(figures: Figures) -> None:
    """Prints the figures for people."""
    table = Table("what", "figure", title=f"{figures.predictions:,} predictions")
    ratio = figures.creates_per_s / figures.noop_per_s
    each_kib = (figures.in_flight_mib - figures.empty_mib) * 1024 / figures.predictions
    turned = ", ".join(f"{one:.0f}" for one in figures.turned_over_mib)
    for name, figure in (
        ("requests a second, a handler that does nothing", f"{figures.noop_per_s:,.0f}"),
        ("creates a second", f"{figures.creates_per_s:,.0f} ({ratio:.2f} of that)"),
        ("processor time of a create", f"{figures.create_cpu_ms:.2f} ms"),
        ("reads a second", f"{figures.reads_per_s:,.0f}"),
        ("page of a list, all in flight", f"{figures.list_page_ms:.1f} ms"),
        ("memory, empty", f"{figures.empty_mib:.0f} MiB"),
        ("memory, all in flight", f"{figures.in_flight_mib:.0f} MiB ({each_kib:.1f} KiB each)"),
        ("memory after each turn of as many", f"{turned} MiB"),
        ("whole lives a second, with video and webhooks", f"{figures.finished_per_s:,.0f}"),
        ("webhooks late, p50", f"{figures.webhook_late_ms_p50:.0f} ms"),
        ("webhooks late, p99", f"{figures.webhook_late_ms_p99:.0f} ms"),
    ):
        table.add_row(name, figure)
    Console().print(table)


def serve_nothing() -> None:
    """Serves a handler that reads the body and answers."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"id": "none"}, status=201)

    async def serve() -> None:
        application = web.Application()
        application.router.add_post("/{path:.*}", answer)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(json.dumps({"api": f"http://127.0.0.1:{runner.addresses[0][1]}"}), flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve())


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--predictions", type=int, default=10_000, help="how many at a time")
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--serve-nothing", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve_nothing:
        serve_nothing()
        return
    figures = asyncio.run(measure(given.predictions))
    if given.json:
        print(json.dumps(asdict(figures)))
    else:
        show(figures)


if __name__ == "__main__":
    main()
