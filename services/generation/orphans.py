"""Sees to predictions that no generation uses: they are canceled, and followed to their end.

One arises when a lost create turns out to have come off after its generation had ended or gone on,
or when the provider would not stop a job in time. It costs us money and its user nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update

from services.generation import tables
from services.generation.events import Source
from services.generation.metrics import GenerationMetrics
from services.generation.prediction import Prediction
from services.generation.timing import Timing
from services.runtime.database import Database, read_clock

__all__ = ["Orphan", "Orphans", "look_again_at"]

MISSES_MAX = 2
"""A prediction that the provider denies so often is gone."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A prediction that nobody uses, as it is claimed."""

    job_id: str
    generation_id: str
    first_seen_at: datetime
    fence: int
    failures: int


def look_again_at(orphan: Orphan, now: datetime, timing: Timing) -> datetime | None:
    """Returns when to see to an orphan that has not ended; None = no more."""
    if now >= orphan.first_seen_at + timedelta(seconds=timing.orphan_limit_s):
        return None
    wait_s = min(timing.poll_s * 2 ** min(orphan.failures, 16), timing.backoff_max_s)
    return now + timedelta(seconds=wait_s)


class Orphans:
    """Claims and books them."""

    def __init__(
        self, database: Database, timing: Timing, metrics: GenerationMetrics | None = None
    ) -> None:
        self._database = database
        self._timing = timing
        self._metrics = metrics

    async def claim(self, limit: int) -> Sequence[Orphan]:
        """Returns at most `limit` orphans that are due, which are the caller's for a lease."""
        columns = tables.predictions.c
        async with self._database.write() as connection:
            now = await read_clock(connection)
            found = await connection.execute(
                select(columns.job_id)
                .where(columns.due_at <= now)
                .order_by(columns.due_at)
                .limit(limit)
                .with_for_update(skip_locked=True)
            )
            claimed = await connection.execute(
                update(tables.predictions)
                .where(columns.job_id.in_(list(found.scalars())))
                .values(
                    due_at=now + timedelta(seconds=self._timing.provider_lease_s),
                    fence=columns.fence + 1,
                )
                .returning(
                    columns.job_id,
                    columns.generation_id,
                    columns.first_seen_at,
                    columns.fence,
                    columns.failures,
                )
            )
            return [Orphan(*row) for row in claimed]

    async def seen(self, orphan: Orphan, prediction: Prediction | None) -> bool:
        """Notes how an orphan is; None means that the provider does not know it.

        Returns whether it needs no more looking after.
        """
        columns = tables.predictions.c
        async with self._database.write() as connection:
            now = await read_clock(connection)
            if prediction is not None and prediction.is_final:
                values = {
                    "status": prediction.status,
                    "ended_at": now,
                    "ended_by": Source.POLL.value,
                    "predict_seconds": prediction.predict_seconds,
                    "due_at": None,
                }
            else:
                gone = prediction is None and orphan.failures + 1 >= MISSES_MAX
                due_at = None if gone else look_again_at(orphan, now, self._timing)
                values = {"due_at": due_at, "failures": orphan.failures + 1}
            changed = await connection.execute(
                update(tables.predictions)
                .where(columns.job_id == orphan.job_id, columns.fence == orphan.fence)
                .where(columns.role == "ORPHAN", columns.ended_at.is_(None))
                .values(values)
            )
        has_ended = prediction is not None and prediction.is_final and changed.rowcount > 0
        if has_ended and prediction is not None and self._metrics is not None:
            self._metrics.orphan_ended(None, prediction)
        return values["due_at"] is None
