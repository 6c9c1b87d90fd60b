"""Keeps the books of attempts and of the provider's predictions, within a batch of the store."""

import operator
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Integer, LargeBinary, Table, Text, and_, bindparam, case, func, or_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from services.generation import tables
from services.generation.commands import AttemptRecord
from services.generation.events import Source
from services.generation.prediction import FINAL_STATUSES, Prediction
from services.generation.state import Generation, Stage
from services.generation.timing import Timing
from services.runtime.database import Instant

__all__ = ["Bookings", "insert_into"]

ANSWER_BYTES_MAX = 64 * 1024


class Bookings:
    """Collects what a batch learned of attempts and predictions, and writes it in the end."""

    def __init__(self, timing: Timing, now: datetime) -> None:
        self._timing = timing
        self._now = now
        self._records: list[dict[str, Any]] = []
        self._predictions: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, dict[str, Any]] = {}
        self._given_up: list[dict[str, Any]] = []

    def record(self, generation_id: str, record: AttemptRecord) -> None:
        """Notes what became of an attempt."""
        search_at = None
        if record.state == "UNKNOWN":
            search_at = self._now + timedelta(seconds=self._timing.search_delays_s[0])
        self._records.append(
            {
                "of_generation": generation_id,
                "of_attempt": record.attempt,
                "new_state": record.state,
                "new_search_at": search_at,
                "new_status": record.http_status,
                "new_answer": (record.answer or b"")[:ANSWER_BYTES_MAX] or None,
                "new_detail": record.detail,
                "new_settled_at": self._now,
            }
        )

    def book(
        self, prediction: Prediction, generation_id: str, attempt: int, source: Source, role: str
    ) -> None:
        """Notes a prediction; one that is known keeps its role unless the new one is ADOPTED."""
        if prediction.job_id not in self._predictions or role == "ADOPTED":
            self._predictions[prediction.job_id] = {
                "job_id": prediction.job_id,
                "generation_id": generation_id,
                "attempt": attempt,
                "role": role,
                "status": prediction.status,
                "first_seen_at": self._now,
                "found_by": source.value,
                # A worker cancels what nobody uses.
                "due_at": self._now if role == "ORPHAN" and not prediction.is_final else None,
                "fence": 0,
                "failures": 0,
            }
        self.see(prediction, source)

    def see(self, prediction: Prediction, source: Source) -> None:
        """Notes what was said about a prediction; what is known to have ended stays so."""
        seen = self._seen.get(prediction.job_id)
        if seen is None or seen["new_ended_at"] is None:
            self._seen[prediction.job_id] = {
                "of_job": prediction.job_id,
                "new_status": prediction.status,
                "new_ended_at": self._now if prediction.is_final else None,
                "new_ended_by": source.value if prediction.is_final else None,
                "new_predict_seconds": prediction.predict_seconds,
                "new_error": prediction.error,
            }

    def give_up(self, before: Generation, after: Generation) -> None:
        """Notes the prediction that a generation no longer uses after its stage changed, if any."""
        job_id = before.job_id
        if job_id is None:
            return
        if after.job_id is None:
            self._given_up.append({"of_job": job_id, "new_role": "SUPERSEDED", "new_due_at": None})
        elif after.stage is Stage.REFUNDING and after.provider_status not in FINAL_STATUSES:
            self._given_up.append({"of_job": job_id, "new_role": "ORPHAN", "new_due_at": self._now})

    async def write(self, connection: AsyncConnection) -> None:
        """Writes all that was noted, a statement for each kind."""
        if self._records:
            key = operator.itemgetter("of_generation", "of_attempt")
            await connection.execute(_SETTLE_ATTEMPT, sorted(self._records, key=key))
        if self._predictions:
            insert = insert_into(connection, tables.predictions)
            # A webhook with an odd body may have made an orphan of what the create's answer adopts.
            await connection.execute(
                insert.on_conflict_do_update(
                    index_elements=["job_id"],
                    set_={"role": insert.excluded.role, "due_at": None},
                    where=insert.excluded.role == "ADOPTED",
                ),
                _ordered(self._predictions.values(), "job_id"),
            )
        if self._seen:
            await connection.execute(_SEE, _ordered(self._seen.values(), "of_job"))
        if self._given_up:
            await connection.execute(_GIVE_UP, _ordered(self._given_up, "of_job"))


def insert_into(connection: AsyncConnection, table: Table) -> Any:
    """Returns an INSERT that knows ON CONFLICT, which the two dialects spell alike."""
    if connection.dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def _ordered(rows: Iterable[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Returns rows in the order in which all replicas lock them."""
    return sorted(rows, key=lambda row: str(row[key]))


_attempts = tables.attempts.c
_STATE, _NEW_STATE = tables.attempts.c.state, bindparam("new_state", type_=Text)
_SETTLE_ATTEMPT = (
    update(tables.attempts)
    .where(
        _attempts.generation_id == bindparam("of_generation"),
        _attempts.attempt == bindparam("of_attempt"),
        # That it was created is not unlearned: a webhook may have told before the answer was lost.
        # And what is known is not made unknown.
        or_(
            _NEW_STATE == "CREATED",
            and_(or_(_NEW_STATE == "REFUSED", _NEW_STATE == "NOT_SENT"), _STATE != "CREATED"),
            and_(_NEW_STATE == "UNKNOWN", _STATE == "OPEN"),
            and_(_NEW_STATE == "ABSENT", _STATE == "UNKNOWN"),
        ),
    )
    .values(
        state=_NEW_STATE,
        search_at=bindparam("new_search_at"),
        settled_at=bindparam("new_settled_at"),
        # Whoever finds a lost create knows nothing of what was answered to it.
        http_status=func.coalesce(bindparam("new_status", type_=Integer), _attempts.http_status),
        answer=func.coalesce(bindparam("new_answer", type_=LargeBinary), _attempts.answer),
        detail=func.coalesce(bindparam("new_detail", type_=Text), _attempts.detail),
    )
)

_known = tables.predictions.c
_SEE = (
    update(tables.predictions)
    .where(_known.job_id == bindparam("of_job"), _known.ended_at.is_(None))
    .values(
        status=bindparam("new_status"),
        ended_at=bindparam("new_ended_at"),
        ended_by=bindparam("new_ended_by"),
        predict_seconds=bindparam("new_predict_seconds"),
        error=bindparam("new_error"),
        due_at=case((bindparam("new_ended_at", type_=Instant).is_(None), _known.due_at)),
    )
)
_GIVE_UP = (
    update(tables.predictions)
    .where(
        _known.job_id == bindparam("of_job"),
        or_(_known.ended_at.is_(None), bindparam("new_role", type_=Text) == "SUPERSEDED"),
    )
    .values(role=bindparam("new_role"), due_at=bindparam("new_due_at"))
)
