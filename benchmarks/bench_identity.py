"""Measures what certificates cost a call, and what a handshake costs.

Both sides run in this process, so the processor's time that a call takes is that of the caller and
of the answerer together; it means more than the clock's on a machine that does other things. The
three kinds take turns, round by round, since only the ratios of one run mean much.
"""

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import uvloop
from google.protobuf import wrappers_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.table import Table

from services.cli.certs import make_certificates, tls_settings
from services.runtime.channel import connect, invoke
from services.runtime.server import ServedService, Server, ServerSettings
from services.runtime.telemetry import configure_log
from services.runtime.tls import Certificates, channel_credentials
from tests.serving import free_address

NAME = "reelworks.nothing.v1.NothingService"
ASK = f"/{NAME}/Ask"
PLAINTEXT = "plaintext"
CERTIFIED = "certificates"
FIXED = "certificates that are never renewed"
ROWS = (PLAINTEXT, CERTIFIED, FIXED)
IN_FLIGHT = 64
HANDSHAKES = 50

Text = wrappers_pb2.StringValue


@dataclass
class Figures:
    """What was measured of one kind, a figure for each round."""

    calls_per_s: list[float] = field(default_factory=list)
    processor_us: list[float] = field(default_factory=list)
    alone_us: list[float] = field(default_factory=list)
    connect_ms: list[float] = field(default_factory=list)


async def answer(_request: Text, _context: Any) -> Text:
    """Does nothing."""
    return Text()


def register(server: grpc.aio.Server) -> None:
    """Adds a service that does nothing."""
    handler = grpc.unary_unary_rpc_method_handler(
        answer,
        request_deserializer=Text.FromString,
        response_serializer=Text.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, {"Ask": handler}),))


@contextlib.asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[str]:
    """Runs the service behind all interceptors, and gives its address."""
    address, leave = free_address(), asyncio.Event()
    server = Server(
        settings=ServerSettings(address=address, drain_s=0, grace_s=1, **settings),
        domain="nothing.reelworks.dev",
        services=[ServedService(NAME, register)],
        stopping=asyncio.Event(),
        leave=leave,
        callers={ASK: frozenset({"web"})},
    )
    task = asyncio.create_task(server.serve())
    try:
        yield address
    finally:
        leave.set()
        await task


def method(channel: grpc.aio.Channel) -> Any:
    """Returns the method of a stub."""
    return channel.unary_unary(
        ASK, request_serializer=Text.SerializeToString, response_deserializer=Text.FromString
    )


async def flood(ask: Any, seconds: float) -> tuple[float, float]:
    """Returns calls a second, and microseconds of the processor for each."""
    ends_at, calls = time.monotonic() + seconds, 0

    async def go_on() -> None:
        nonlocal calls
        while time.monotonic() < ends_at:
            await invoke(ask, Text())
            calls += 1

    began, processor_began = time.monotonic(), time.process_time()
    await asyncio.gather(*(go_on() for _ in range(IN_FLIGHT)))
    taken_s, processor_s = time.monotonic() - began, time.process_time() - processor_began
    return calls / taken_s, processor_s / calls * 1e6


async def alone(ask: Any, seconds: float) -> float:
    """Returns the median of microseconds that a call takes when there is no other."""
    ends_at, taken = time.monotonic() + seconds, []
    while time.monotonic() < ends_at:
        began = time.perf_counter()
        await invoke(ask, Text())
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6


async def handshakes(address: str, certificates: Certificates | None) -> float:
    """Returns the processor's milliseconds for a new connection and its first call."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    began = time.process_time()
    for _ in range(HANDSHAKES):
        channel = (
            grpc.aio.insecure_channel(address, options)
            if certificates is None
            else grpc.aio.secure_channel(
                address, channel_credentials(certificates.current()), options
            )
        )
        async with channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
    return (time.process_time() - began) / HANDSHAKES * 1000


async def measure(rounds: int, seconds: float, folder: Path) -> dict[str, Figures]:
    """Returns the figures of each kind."""
    make_certificates(folder, {}, timedelta(days=1))

    def files(role: str) -> list[Path]:
        return [Path(path) for path in tls_settings(folder, role).values()]

    certificates = Certificates(*files("web"))
    own = dict(
        zip(("tls_certificate_file", "tls_key_file", "tls_ca_file"), files("credits"), strict=True)
    )
    found = {row: Figures() for row in ROWS}
    async with (
        serving() as plain_address,
        serving(**own) as address,
        connect(plain_address) as plain,
        connect(address, certificates=certificates) as renewed,
    ):
        # What `connect` makes for certificates, but for the renewal.
        fixed = renewed.present()  # type: ignore[attr-defined]
        asks = {PLAINTEXT: method(plain), CERTIFIED: method(renewed), FIXED: method(fixed)}
        for ask in asks.values():
            await flood(ask, 0.5)
        for _ in range(rounds):
            for row, ask in asks.items():
                calls_per_s, processor_us = await flood(ask, seconds)
                found[row].calls_per_s.append(calls_per_s)
                found[row].processor_us.append(processor_us)
                found[row].alone_us.append(await alone(ask, seconds / 3))
            found[PLAINTEXT].connect_ms.append(await handshakes(plain_address, None))
            found[CERTIFIED].connect_ms.append(await handshakes(address, certificates))
    return found


def show(found: dict[str, Figures]) -> None:
    """Prints the medians, and how they compare with plaintext."""
    table = Table("", f"calls/s, {IN_FLIGHT} at once", "processor a call", "one call", "connecting")
    base = found[PLAINTEXT]
    for row, figures in found.items():
        table.add_row(
            row,
            _cell(figures.calls_per_s, base.calls_per_s, ",.0f", ""),
            _cell(figures.processor_us, base.processor_us, ".0f", " µs"),
            _cell(figures.alone_us, base.alone_us, ".0f", " µs"),
            _cell(figures.connect_ms, base.connect_ms, ".2f", " ms"),
        )
    Console().print(table)


def _cell(figures: Sequence[float], base: Sequence[float], form: str, unit: str) -> str:
    if not figures:
        return ""
    ratio = statistics.median(a / b for a, b in zip(figures, base, strict=True))
    return f"{format(statistics.median(figures), form)}{unit} ({ratio:.2f})"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each flood")
    given = parser.parse_args()
    configure_log("bench", level="ERROR")
    with tempfile.TemporaryDirectory() as folder:
        show(uvloop.run(measure(given.rounds, given.seconds, Path(folder))))


if __name__ == "__main__":
    main()
