"""What the credits service measures."""

from collections.abc import Mapping
from datetime import datetime

from services.credits.records import (
    INVARIANTS,
    OpenReservations,
    Transaction,
    TransactionType,
)
from services.runtime.database import Database
from services.runtime.metrics import Metrics, PoolMetrics

__all__ = ["CreditsMetrics"]


class CreditsMetrics:
    """Counts what moves, and shows what is set aside and what does not agree."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        """Takes the measures of the process; without them it counts for nobody."""
        metrics = metrics or Metrics()
        self._moved = metrics.counter("credits_moved_total")
        self._transactions = metrics.counter("transactions_total")
        self._reserved = metrics.gauge("reserved_credits")
        self._open = metrics.gauge("reservations_open")
        self._overdue = metrics.gauge("reservations_overdue")
        self._violations = metrics.gauge("ledger_violations")
        self._verified = metrics.gauge("ledger_verified_timestamp")
        self._batch_size = metrics.histogram("batch_size")
        self._pools = PoolMetrics(metrics)
        self._figures_read = metrics.gauge("figures_read_timestamp")
        for type_ in TransactionType:
            self._moved.labels(type_)
            self._transactions.labels(type_)
        self.disagrees({})

    def watch_pool(self, database: Database) -> None:
        """Shows how many connections of `database` are in use, whenever somebody looks."""
        self._pools.watch(database)

    def wrote(self, commands: int) -> None:
        """Counts a batch."""
        self._batch_size.observe(commands)

    def moved(self, transaction: Transaction) -> None:
        """Counts a transaction."""
        self._transactions.labels(transaction.type).inc()
        self._moved.labels(transaction.type).inc(_moved_credits(transaction))

    def stands(self, figures: OpenReservations, read_at: datetime) -> None:
        """Shows what is set aside."""
        self._open.set(figures.reservations)
        self._reserved.set(figures.credits_held)
        self._overdue.set(figures.overdue)
        self._figures_read.set(read_at.timestamp())

    def disagrees(self, violations: Mapping[str, int]) -> None:
        """Shows how often each rule is broken, by its name; what is not there, never."""
        for invariant in INVARIANTS:
            self._violations.labels(invariant).set(violations.get(invariant, 0))

    def verified(self, at: datetime) -> None:
        """Shows when all of the ledger was verified last."""
        self._verified.set(at.timestamp())


def _moved_credits(transaction: Transaction) -> int:
    match transaction.type:
        case TransactionType.RESERVATION:
            return transaction.reserved_delta
        case TransactionType.DEDUCTION:
            # What is not spent of a reservation returns.
            return -transaction.reserved_delta - transaction.available_delta
        case _:
            return abs(transaction.available_delta)
