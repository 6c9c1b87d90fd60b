"""Removes what was kept for long enough: first bodies and headers, later the rest of the row."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import (
    Column,
    ColumnElement,
    Delete,
    Integer,
    Select,
    Update,
    bindparam,
    delete,
    func,
    select,
    text,
    update,
)

from services.runtime.database import Database, Instant, read_clock
from services.runtime.errors import ServiceError
from services.runtime.telemetry import get_logger
from services.webhook.tables import IS_BLANK, IS_UNUSED, IS_USED, inbox

__all__ = ["Retention", "Terms"]

INTERVAL_S = 60.0
INTERVAL_S_MAX = 900.0
"""Between two rounds while they fail."""
JITTER = 0.2
"""So that replicas do not prune in step."""
BATCH_ROWS = 100
BATCH_BYTES_MAX = 1024 * 1024
"""Of bodies, unless one alone is larger; SQLite overwrites them, and stores nothing meanwhile."""
PAUSE_S = 0.05
"""Between two batches, since webhooks are stored meanwhile."""

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """For how long what is kept."""

    body: timedelta = timedelta(hours=72)
    """Body and headers of an event that a generation used, from its delivery."""
    unused: timedelta = timedelta(days=90)
    """Body and headers of an event that is DEAD or that no generation used, from its arrival."""
    row: timedelta = timedelta(days=27)
    """The rest of a row, by which a repetition is recognized, from when its body went."""


@dataclass(frozen=True, slots=True)
class _Rule:
    """What is done to which rows."""

    name: str
    due: Select[int, int]
    """Gives number and size of rows; takes the latest moment `before` of their clock."""
    change: Update | Delete
    """What is done to them; may take `now`."""
    kept: timedelta


class Retention:
    """Prunes the inbox, again and again; any number of replicas share the work."""

    def __init__(
        self,
        database: Database,
        terms: Terms,
        stopping: asyncio.Event,
        *,
        interval_s: float = INTERVAL_S,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        self._database = database
        self._rules = _rules(terms)
        self._stopping = stopping
        self._interval_s = interval_s
        self._batch_rows = batch_rows

    async def run(self) -> None:
        """Prunes until the process stops, ever more rarely while that fails."""
        pause_s = self._interval_s
        while not self._stopping.is_set():
            try:
                pruned = await self.prune()
                if pruned:
                    logger.info("pruned", **pruned)
                pause_s = self._interval_s
            except Exception as error:  # Whatever it is, webhooks must still be stored meanwhile.
                expected = isinstance(error, ServiceError)
                logger.warning("not pruned", cause=str(error), exc_info=None if expected else error)
                pause_s = min(INTERVAL_S_MAX, 2 * pause_s)
            await self._rest(pause_s * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311  Jitter.

    async def prune(self) -> Mapping[str, int]:
        """Prunes all that is due, some rows at a time, and returns how many by what was done.

        Raises Unavailable when the database is away; what was done until then stays done.
        """
        pruned: Counter[str] = Counter()
        for rule in self._rules:
            while not self._stopping.is_set():
                rows = await self._apply(rule)
                if not rows:
                    break
                pruned[rule.name] += rows
                await self._rest(PAUSE_S)
        return pruned

    async def _apply(self, rule: _Rule) -> int:
        """Does it to one batch, and returns to how many rows."""
        async with self._database.write() as connection:
            now = await read_clock(connection)
            due = await connection.execute(
                rule.due, {"before": now - rule.kept, "rows_max": self._batch_rows}
            )
            numbers = _first(due.all())
            if numbers:
                # By their numbers, since a planner would read the whole table for a subquery.
                change = rule.change.where(inbox.c.sequence.in_(numbers))
                await connection.execute(change, {"now": now} if change.is_update else {})
        return len(numbers)

    async def _rest(self, pause_s: float) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()
        except TimeoutError:
            pass


def _first(rows: Sequence[tuple[int, int]]) -> list[int]:
    """Returns the numbers of as many rows as one batch may hold, of all their numbers and sizes."""
    sizes_bytes = itertools.accumulate(size_bytes for _, size_bytes in rows)
    return [
        number
        for place, ((number, _), together_bytes) in enumerate(zip(rows, sizes_bytes, strict=True))
        if place == 0 or together_bytes <= BATCH_BYTES_MAX
    ]


def _rules(terms: Terms) -> tuple[_Rule, ...]:
    now: ColumnElement[object] = bindparam("now", type_=Instant())
    blank = update(inbox).values(body=b"", headers="[]", blanked_at=now)
    unused_days = terms.unused / timedelta(days=1)
    given_up = blank.values(dropped_at=now, drop_reason=f"kept for {unused_days:g} days")
    # On SQLite, which counts from the greatest number, that of a removed newest row would return.
    is_older = inbox.c.sequence < select(func.max(inbox.c.sequence)).scalar_subquery()
    return (
        _Rule("blanked", _due(IS_USED, inbox.c.delivered_at), blank, terms.body),
        _Rule("given_up", _due(IS_UNUSED, inbox.c.stored_at), given_up, terms.unused),
        _Rule(
            "deleted", _due(IS_BLANK, inbox.c.blanked_at).where(is_older), delete(inbox), terms.row
        ),
    )


def _due(condition: str, clock: Column[object]) -> Select[int, int]:
    before: ColumnElement[object] = bindparam("before", type_=Instant())
    return (
        select(inbox.c.sequence, func.length(inbox.c.body))
        .where(text(condition), clock <= before)
        .order_by(clock)
        .limit(bindparam("rows_max", type_=Integer()))
        # What another replica prunes, or an operator replays, is passed over.
        .with_for_update(skip_locked=True)
    )
