"""Each call is measured and traced on both sides, and its cancellation reaches the server."""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from services.runtime.channel import connect, invoke
from services.runtime.errors import NotFound, ServiceError
from services.runtime.metrics import CallMetrics, Metrics
from services.runtime.tracing import begin_request, current_traceparent, tracing
from tests.contract.runtime.conftest import Text, Toy, new_server
from tests.end_to_end.telemetry.collector import Collector, running_collector
from tests.serving import free_address, serving

LIMIT_S = 20.0
CALL = {"service": "ToyService", "method": "Ask"}


@dataclasses.dataclass
class Measured:
    """A service whose two sides are measured."""

    toy: Toy
    channel: grpc.aio.Channel
    server: Metrics
    client: Metrics

    def counted(self, side: str, code: str) -> float:
        """How many calls ended so, as a `server` or a `client` sees it."""
        metrics: Metrics = getattr(self, side)
        name = f"reelworks_rpc_{side}_seconds_count"
        return metrics.registry.get_sample_value(name, CALL | {"code": code}) or 0.0

    async def both_count(self, code: str) -> None:
        """Waits until both sides have counted a call that ended so."""
        async with asyncio.timeout(LIMIT_S):
            while self.counted("server", code) < 1 or self.counted("client", code) < 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.fixture
async def measured() -> AsyncIterator[Measured]:
    toy, server, client = Toy(free_address()), Metrics(), Metrics()

    async def serve(leave: asyncio.Event) -> None:
        toy.leave = leave
        await dataclasses.replace(new_server(toy, leave), metrics=server).serve()

    async with serving(serve, toy.address):
        channel = connect(toy.address, measured=CallMetrics.of_clients(client))
        yield Measured(toy, channel, server, client)
        await channel.close()


async def test_calls_are_counted_by_their_status_on_both_sides(measured: Measured) -> None:
    ask = measured.toy.unary(measured.channel)

    async def refuse(_request: str, _context: Any) -> str:
        raise NotFound("NO_SUCH_TOY", "There is no such toy.")

    await invoke(ask, Text(value="hello"))
    measured.toy.handler = refuse
    with pytest.raises(ServiceError):
        await invoke(ask, Text(value="hello"))

    await measured.both_count("OK")
    await measured.both_count("NOT_FOUND")


async def test_a_call_that_its_caller_cancels_is_canceled_at_the_server_too(
    measured: Measured,
) -> None:
    begun, canceled = asyncio.Event(), asyncio.Event()

    async def wait(_request: str, _context: Any) -> str:
        begun.set()
        try:
            await asyncio.sleep(LIMIT_S)
        except asyncio.CancelledError:
            canceled.set()
            raise
        return ""

    measured.toy.handler = wait
    call = asyncio.create_task(invoke(measured.toy.unary(measured.channel), Text(value="hello")))
    async with asyncio.timeout(LIMIT_S):
        await begun.wait()
        call.cancel()
        await asyncio.wait([call])
        await canceled.wait()

    await measured.both_count("CANCELLED")


async def test_a_call_whose_time_is_over_is_counted_so(measured: Measured) -> None:
    async def wait(_request: str, _context: Any) -> str:
        await asyncio.sleep(LIMIT_S)
        return ""

    measured.toy.handler = wait
    with pytest.raises(grpc.aio.AioRpcError):
        await measured.toy.unary(measured.channel)(Text(value="hello"), timeout=0.2)

    await measured.both_count("DEADLINE_EXCEEDED")


@contextlib.asynccontextmanager
async def collecting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    async with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.address)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        yield collector


async def sent(collector: Collector, spans: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        while len(collector.spans) < spans:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_call_is_a_span_on_each_side_and_a_failure_says_so(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def break_(_request: str, _context: Any) -> str:
        raise RuntimeError("secret words")

    measured.toy.handler = break_
    async with collecting(monkeypatch) as collector:
        with tracing("toy", "test"):
            with pytest.raises(ServiceError):
                await invoke(measured.toy.unary(measured.channel), Text(value="hello"))
            await sent(collector, 2)

    client, server = sorted(collector.spans, key=lambda span: span.kind)
    assert (client.kind, server.kind) == ("CLIENT", "SERVER")
    assert client.name == server.name == "reelworks.toy.v1.ToyService/Ask"
    assert (server.trace_id, server.parent_id) == (client.trace_id, client.span_id)
    assert client.has_failed
    assert (server.has_failed, server.why) == (True, "INTERNAL")
    assert b"secret words" not in b"".join(collector.bodies)


async def test_without_a_collector_the_ids_of_a_trace_are_handed_on(measured: Measured) -> None:
    heard: list[str | None] = []

    async def listen(_request: str, _context: Any) -> str:
        heard.append(current_traceparent())
        return ""

    measured.toy.handler = listen

    async def ask() -> str:
        trace_id = begin_request("GET").trace_id
        await invoke(measured.toy.unary(measured.channel), Text(value="hello"))
        return trace_id

    trace_id = await asyncio.create_task(ask())

    assert heard[0] is not None
    assert heard[0].split("-")[1] == trace_id


async def test_a_collector_that_is_away_delays_no_call(
    measured: Measured, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{free_address()}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "16")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    ask = measured.toy.unary(measured.channel)

    with tracing("toy", "test"):
        for _ in range(100):
            await invoke(ask, Text(value="hello"))
        async with asyncio.timeout(LIMIT_S):
            while "spans are lost" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        began = time.monotonic()

    # Leaving has a bound, too, whatever still waits.
    assert time.monotonic() - began < 5
    assert caplog.text.count("spans are lost") == 1
