"""Measures what it costs a call to be looked at: by nothing, by metrics, and by traces too.

    python -m benchmarks.bench_telemetry [--calls 500] [--rounds 5]

What is measured is processor time, in alternating rounds, so that what else the machine does falls
on all of them: of a whole call, whose caller and service are one process, and of what looks at it
alone, on both sides, around nothing. Spans are sent to a collector that is away: made, queued and
lost.
"""

import argparse
import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
from google.protobuf import wrappers_pb2
from reelworks.credits.v1 import credits_pb2
from rich.console import Console
from rich.table import Table

from services.runtime.call_telemetry import ClientTelemetry, ServerTelemetry
from services.runtime.calls import Around, Call, server_interceptors
from services.runtime.channel import connect, invoke
from services.runtime.metrics import CallMetrics, Metrics
from services.runtime.telemetry import configure_log
from services.runtime.tracing import TRACEPARENT, begin_request, tracing
from services.runtime.validation import Validator

NAME = "reelworks.echo.v1.EchoService"
NOWHERE = "http://127.0.0.1:9"
BUDGET_US = 50.0
"""What everything that looks at a call may take, of the processor."""
WARM_UP = 200
Text = wrappers_pb2.StringValue
REQUEST = credits_pb2.ReserveRequest(user_id="ada", reservation_id="01a1fe35-9415-72d0", credits=10)
GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextlib.asynccontextmanager
async def around_nothing(_call: Call) -> AsyncIterator[None]:
    """Stands in for an interceptor that does nothing."""
    yield


class _Context:
    """What gRPC tells of a call that went well."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("user-agent", "bench"), (TRACEPARENT, GIVEN))

    def code(self) -> None:
        return None


class _Ended:
    """A call that has ended well."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        callback(self)

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK


class Variant:
    """A service and its caller, looked at in one way."""

    def __init__(self, name: str, telemetry: Around, measured: CallMetrics | None) -> None:
        self.name = name
        self.costs_us: list[float] = []
        """Of a call, by round."""
        self.alone_us: list[float] = []
        """Of the telemetry alone."""
        self._measured = measured
        self._telemetry = telemetry
        self._server = grpc.aio.server(
            interceptors=server_interceptors(
                "echo.reelworks.dev", telemetry, around_nothing, Validator({}, {}), 1000, 1000, {}
            )
        )
        self._channel: grpc.aio.Channel | None = None

    async def start(self) -> None:
        """Begins to answer."""

        async def echo(request: Text, _context: Any) -> Text:
            return request

        handler = grpc.unary_unary_rpc_method_handler(
            echo, request_deserializer=Text.FromString, response_serializer=Text.SerializeToString
        )
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(NAME, {"Echo": handler}),)
        )
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        self._channel = connect(f"127.0.0.1:{port}", measured=self._measured)

    async def measure(self, calls: int) -> float:
        """Returns how many microseconds of processor time a call took, of both sides together."""
        assert self._channel is not None, "it was started"
        method: Any = self._channel.unary_unary(
            f"/{NAME}/Echo",
            request_serializer=Text.SerializeToString,
            response_deserializer=Text.FromString,
        )
        begin_request("bench")
        began = time.process_time()
        for _ in range(calls):
            await invoke(method, Text(value="hello"))
        return (time.process_time() - began) / calls * 1e6

    async def measure_alone(self, calls: int) -> float:
        """Returns the same of the telemetry of both sides alone."""
        call = Call(f"/{NAME}/Echo", REQUEST, _Context(), streams=False)
        client = ClientTelemetry(self._measured)
        begin_request("bench")
        began = time.process_time()
        for _ in range(calls):
            async with self._telemetry(call):
                pass
            if self._telemetry is not around_nothing:
                begun = client.begin(call, streams=False)
                begun.metadata(None)
                begun.watch(_Ended())
        return (time.process_time() - began) / calls * 1e6

    async def stop(self) -> None:
        """Answers no more."""
        assert self._channel is not None, "it was started"
        await self._channel.close()
        await self._server.stop(None)


def variants() -> Iterator[tuple[Variant, bool]]:
    """Yields what is compared, and whether spans are made of it."""
    yield Variant("nothing looks", around_nothing, None), False
    yield Variant("nobody asked", ServerTelemetry().around, None), False
    for name, traced in (("metrics", False), ("metrics and traces", True)):
        metrics = Metrics()
        server = ServerTelemetry(CallMetrics.of_server(metrics))
        yield Variant(name, server.around, CallMetrics.of_clients(metrics)), traced


async def run(calls: int, rounds: int) -> list[Variant]:
    """Returns the variants with what they cost."""
    chosen = list(variants())
    for variant, _ in chosen:
        await variant.start()
        await asyncio.create_task(variant.measure(WARM_UP))
    for _ in range(rounds):
        for variant, traced in chosen:
            with tracing("bench", "bench") if traced else contextlib.nullcontext():
                # A context of its own for each, or spans of one would be those of the next.
                cost_us = await asyncio.create_task(variant.measure(calls))
                alone_us = await asyncio.create_task(variant.measure_alone(calls))
            variant.costs_us.append(cost_us)
            variant.alone_us.append(alone_us)
    for variant, _ in chosen:
        await variant.stop()
    return [variant for variant, _ in chosen]


def show(measured: list[Variant]) -> None:
    """Prints the costs, and what each adds to the first."""
    table = Table("looked at by", "a call, µs", "ratio", "looking alone, µs", "of 50 µs")
    first = measured[0]
    for variant in measured:
        # Each round against the same round, since the machine is not the same all the time.
        ratio = statistics.median(
            own / least for own, least in zip(variant.costs_us, first.costs_us, strict=True)
        )
        alone_us = statistics.median(variant.alone_us)
        table.add_row(
            variant.name,
            f"{statistics.median(variant.costs_us):.0f}",
            f"{ratio:.2f}",
            f"{alone_us:.1f}",
            f"{alone_us / BUDGET_US:.0%}",
        )
    Console().print(table)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=500, help="in a round, of each")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    configure_log("bench", level="ERROR")
    os.environ["GRPC_VERBOSITY"] = "NONE"
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = NOWHERE
    show(asyncio.run(run(given.calls, given.rounds)))


if __name__ == "__main__":
    main()
