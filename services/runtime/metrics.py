"""Measures what a process does, and shows it to Prometheus on a port of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Protocol, Self

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
    "HasPools",
    "Kind",
    "Measure",
    "Metrics",
    "Pool",
    "PoolMetrics",
    "Validity",
    "serving_metrics",
]

OTHER = "other"
"""Stands in a label for what this process does not know."""


class Validity(Protocol):
    """How long a certificate is good."""

    @property
    def expires_at(self) -> datetime:
        """When nobody believes it any more."""

    @property
    def late_at(self) -> datetime:
        """When it should have been replaced by another."""


class Pool(Protocol):
    """Keeps connections."""

    def size(self) -> int:
        """Returns how many there are at most."""

    def checkedout(self) -> int:
        """Returns how many somebody works with now."""


class HasPools(Protocol):
    """Reaches a database by connections that pools keep."""

    @property
    def pools(self) -> Mapping[str, Pool]:
        """The pools, by what their connections are for."""


class Metrics:
    """The measures of one process; each is made once, by its declared name."""

    def __init__(self) -> None:
        # A process begins with all of them, so when each began says nothing.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # It has no types.
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._expires = self.gauge("certificate_expires_timestamp")
        self._late = self.gauge("certificate_late_timestamp")

    def watch_certificate(self, current: Callable[[], Validity]) -> None:
        """Shows until when the certificate of the process is good, whenever somebody looks."""

        def expires() -> float:
            return current().expires_at.timestamp()

        def late() -> float:
            return current().late_at.timestamp()

        self._expires.set_function(expires)
        self._late.set_function(late)

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


class PoolMetrics:
    """Shows how many connections each pool of a database has, and how many are in use."""

    def __init__(self, metrics: Metrics) -> None:
        self._in_use = metrics.gauge("database_pool_in_use")
        self._size = metrics.gauge("database_pool_size")

    def watch(self, database: HasPools) -> None:
        """Shows them whenever somebody looks."""
        for name in database.pools:
            self._in_use.labels(name).set_function(partial(_connections_in_use, database, name))
            self._size.labels(name).set_function(partial(_connections_max, database, name))


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


def _connections_in_use(database: HasPools, name: str) -> int:
    return database.pools[name].checkedout()


def _connections_max(database: HasPools, name: str) -> int:
    return database.pools[name].size()


def _declared(name: str, kind: Kind) -> Measure:
    measure = DECLARED[name]
    if measure.kind is not kind:
        raise ValueError(f"{name} is declared as a {measure.kind}")
    return measure
