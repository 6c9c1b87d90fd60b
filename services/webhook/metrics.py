"""What the webhook service measures."""

from datetime import datetime

from services.runtime.callback import Verdict
from services.runtime.database import Database
from services.runtime.metrics import Metrics, PoolMetrics
from services.webhook.events import Backlog
from services.webhook.signature import Reason

__all__ = ["WebhookMetrics"]

ODD = ("ORPHAN", "UNMATCHED", "UNREADABLE")
"""What generation answers to an event that changes none."""


class WebhookMetrics:
    """Counts what comes in, what is stored and what is handed on."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        """Takes the measures of the process; without them it counts for nobody."""
        metrics = metrics or Metrics()
        self._pools = PoolMetrics(metrics)
        self._requests = metrics.counter("webhook_requests_total")
        self._broken = metrics.counter("webhook_broken_requests_total")
        self._connections_refused = metrics.counter("webhook_connections_refused_total")
        self._rejected = metrics.counter("webhook_rejected_total")
        self._queries = metrics.counter("webhook_query_total")
        self._acknowledged_s = metrics.histogram("webhook_ack_seconds")
        self._batch_rows = metrics.histogram("webhook_batch_rows")
        self._stored_s = metrics.histogram("webhook_store_seconds")
        self._duplicates = metrics.counter("webhook_duplicates_total")
        self._pending = metrics.gauge("webhook_pending")
        self._oldest_pending_s = metrics.gauge("webhook_oldest_pending_seconds")
        self._deliveries = metrics.counter("webhook_deliveries_total")
        self._dead = metrics.gauge("webhook_dead")
        self._last_received = metrics.gauge("webhook_last_received_timestamp")
        self._secret_numbers = metrics.counter("webhook_secret_number_total")
        # What begins at 1 has not grown, to whoever asks how fast it grows.
        for verdict in Verdict:
            self._queries.labels(verdict.value)
        for reason in Reason:
            self._rejected.labels(reason)
        for disposition in ODD:
            self._deliveries.labels("OK", disposition)

    def watch_pool(self, database: Database) -> None:
        """Shows how many connections of `database` are in use, whenever somebody looks."""
        self._pools.watch(database)

    def answered(self, status: int, count: int = 1) -> None:
        """Counts answers to webhooks."""
        self._requests.labels(status).inc(count)

    def found_broken(self) -> None:
        """Counts a connection that was ended since what came was no HTTP."""
        self._broken.inc()

    def refused_connection(self) -> None:
        """Counts a connection that was one too many."""
        self._connections_refused.inc()

    def rejected(self, reason: str) -> None:
        """Counts a signature that was not accepted."""
        self._rejected.labels(reason).inc()

    def verified(
        self, received_at: datetime, verdict: str, secret_number: int, count: int = 1
    ) -> None:
        """Counts webhooks that are genuine, the last of which came at `received_at`."""
        self._last_received.set(received_at.timestamp())
        self._queries.labels(verdict).inc(count)
        self._secret_numbers.labels(secret_number).inc(count)

    def acknowledged(self, after_s: float, stored_after_s: float) -> None:
        """Measures how long ago the headers of a webhook came, and how long its storing took."""
        self._acknowledged_s.observe(after_s)
        self._stored_s.observe(stored_after_s)

    def repeated(self, count: int) -> None:
        """Counts webhooks that were stored before."""
        self._duplicates.inc(count)

    def wrote(self, rows: int) -> None:
        """Counts a batch."""
        self._batch_rows.observe(rows)

    def delivered(self, code: str, disposition: str) -> None:
        """Counts a try to deliver: generation's status, and what it did if that is OK."""
        self._deliveries.labels(code, disposition).inc()

    def waits(self, backlog: Backlog) -> None:
        """Shows what waits."""
        self._pending.set(backlog.pending)
        self._oldest_pending_s.set(backlog.oldest_pending_s)
        self._dead.set(backlog.dead)
