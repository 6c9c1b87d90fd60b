"""Measures what a process does, and shows it to Prometheus on a port of its own.

Every name of every service is declared here, so that rules and dashboards can be checked against
one list. No label ever holds an id, an address or words that people wrote.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

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

from services.runtime.settings import exit_with, split_address

__all__ = ["DECLARED", "PREFIX", "Kind", "Measure", "Metrics", "serving_metrics"]

PREFIX = "reelworks_"

_QUICK_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200)


class Kind(StrEnum):
    """How a measure behaves over time."""

    COUNTER = "counter"
    """Only grows, from 0 at the start of the process."""
    GAUGE = "gauge"
    """Goes up and down."""
    HISTOGRAM = "histogram"
    """Counts observations by size."""


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that a process measures."""

    kind: Kind
    help: str
    """What it says, with its unit."""
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = _QUICK_S
    """Upper bounds; of a histogram only."""


DECLARED: Mapping[str, Measure] = {
    "webhook_requests_total": Measure(
        Kind.COUNTER, "Answers to webhooks, by HTTP status.", ("answer",)
    ),
    "webhook_broken_requests_total": Measure(
        Kind.COUNTER, "Connections that were ended since what came was no HTTP."
    ),
    "webhook_connections_refused_total": Measure(
        Kind.COUNTER, "Connections that were ended at once, since too many were open."
    ),
    "webhook_rejected_total": Measure(
        Kind.COUNTER, "Webhooks whose signature was not accepted, by reason.", ("reason",)
    ),
    "webhook_query_total": Measure(
        Kind.COUNTER, "Genuine webhooks, by what the query of their address proved.", ("verdict",)
    ),
    "webhook_ack_seconds": Measure(
        Kind.HISTOGRAM, "From the headers of a webhook to its acknowledgement, 200 only."
    ),
    "webhook_batch_rows": Measure(
        Kind.HISTOGRAM, "Rows written in one database transaction.", buckets=_ROWS
    ),
    "webhook_store_seconds": Measure(
        Kind.HISTOGRAM, "From a verified webhook to its durable row, the wait included."
    ),
    "webhook_duplicates_total": Measure(Kind.COUNTER, "Webhooks that were stored before."),
    "webhook_pending": Measure(Kind.GAUGE, "Events that generation has not recorded yet."),
    "webhook_oldest_pending_seconds": Measure(
        Kind.GAUGE, "Age of the oldest of them; 0 without any."
    ),
    "webhook_deliveries_total": Measure(
        Kind.COUNTER,
        "Tries to deliver, by generation's status and what it did.",
        ("code", "disposition"),
    ),
    "webhook_dead": Measure(Kind.GAUGE, "Events that wait for a person."),
    "webhook_last_received_timestamp": Measure(
        Kind.GAUGE, "When the last genuine webhook came, in seconds since 1970; 0 before the first."
    ),
    "webhook_secret_number_total": Measure(
        Kind.COUNTER, "Verified webhooks, by the secret that had signed them.", ("number",)
    ),
}
"""All measures, by name without `PREFIX`."""


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
