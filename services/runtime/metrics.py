"""Measures what a process does, and shows it to Prometheus on a port of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Self

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from services.runtime.measures import DECLARED, PREFIX, Kind, Measure
from services.runtime.settings import exit_with, split_address

__all__ = [
    "DECLARED",
    "OTHER",
    "PREFIX",
    "CallMetrics",
    "Kind",
    "Measure",
    "Metrics",
    "serving_metrics",
]

OTHER = "other"
"""Stands in a label for what this process does not know."""


class Metrics:
    """The measures of one process; each is made once, by its declared name."""

    def __init__(self) -> None:
        # A process begins with all of them, so when each began says nothing.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # It has no types.
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

    def counter(self, name: str) -> Counter:
        """Makes a counter."""
        measure = _declared(name, Kind.COUNTER)
        return Counter(PREFIX + name, measure.help, measure.labels, registry=self.registry)

    def gauge(self, name: str) -> Gauge:
        """Makes a gauge."""
        measure = _declared(name, Kind.GAUGE)
        return Gauge(PREFIX + name, measure.help, measure.labels, registry=self.registry)

    def histogram(self, name: str) -> Histogram:
        """Makes a histogram."""
        measure = _declared(name, Kind.HISTOGRAM)
        return Histogram(
            PREFIX + name,
            measure.help,
            measure.labels,
            buckets=measure.buckets,
            registry=self.registry,
        )


class CallMetrics:
    """Measures how long gRPC calls took, by method and status, on one side of them."""

    def __init__(self, seconds: Histogram) -> None:
        self._seconds = seconds
        self._known: dict[tuple[str, str], Histogram] = {}

    @classmethod
    def of_server(cls, metrics: Metrics) -> Self:
        """Measures the calls that this process answers."""
        return cls(metrics.histogram("rpc_server_seconds"))

    @classmethod
    def of_clients(cls, metrics: Metrics) -> Self:
        """Measures the calls that this process makes."""
        return cls(metrics.histogram("rpc_client_seconds"))

    def ended(self, method: str, code: str, seconds: float) -> None:
        """Counts a call of `/package.Service/Method`, which a server or a stub has."""
        known = self._known.get((method, code))
        if known is None:
            service, _, name = method.removeprefix("/").partition("/")
            known = self._seconds.labels(service.rpartition(".")[2], name, code)
            self._known[method, code] = known
        known.observe(seconds)


@contextlib.asynccontextmanager
async def serving_metrics(metrics: Metrics, address: str | None) -> AsyncIterator[int]:
    """Shows `metrics` at `http://<address>/metrics` during the block, and gives the port.

    Without an address it shows nothing. One that cannot be listened on ends the process with exit
    code 2. They are collected in a thread, so a busy event loop does not hide them.
    """
    if address is None:
        yield 0
        return
    host, port = split_address(address)
    try:
        server, thread = start_http_server(port, host, metrics.registry)
    except OSError:
        exit_with(f"REELWORKS_METRICS_ADDRESS: {address} cannot be listened on; is it taken?")
    try:
        yield server.server_port
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join)


def _declared(name: str, kind: Kind) -> Measure:
    measure = DECLARED[name]
    if measure.kind is not kind:
        raise ValueError(f"{name} is declared as a {measure.kind}")
    return measure
