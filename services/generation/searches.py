"""Finds the predictions of lost creates in the provider's list, for the whole fleet at a time."""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, exists, select, update

from services.generation import tables
from services.generation.claims import is_search_gate
from services.generation.commands import AttemptRecord, Happen
from services.generation.events import Source, SubmitAbsent, Submitted
from services.generation.prediction import Prediction
from services.generation.replicate import Replicate, Unreachable
from services.generation.search import (
    LOOK_BACK,
    Listed,
    Lost,
    Searched,
    is_absent,
    match,
    next_search,
)
from services.generation.state import Stage
from services.generation.store import Store
from services.generation.submission import Callbacks
from services.generation.timing import Timing
from services.runtime.database import Database, read_clock
from services.runtime.errors import ServiceError
from services.runtime.failpoints import failpoint
from services.runtime.telemetry import get_logger

__all__ = ["Search", "Searcher", "Searches"]

ATTEMPTS_MAX = 1000
"""So many lost creates are looked for at once; the rest in the next search."""
PAGES_MAX = 50
"""Pages of 100 that one search reads at the most; a list that is longer is not complete."""
CLOCK_BEHIND_S_MAX = 60.0
"""A provider's clock that is further behind the database's has the search begin earlier."""

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for."""

    begun_at: datetime
    """By the database's clock, like all times of attempts."""
    machine_ahead_s: float
    """How far this machine's clock is ahead of that, in seconds."""
    lost: Sequence[Lost]
    fences: Mapping[str, int]
    """Of the lost attempts' generations."""
    rivals: Sequence[Mapping[str, Any]]
    """Inputs whose creates are under way."""


class Searches:
    """Claims and books searches; only one is under way in the fleet."""

    def __init__(self, database: Database, timing: Timing) -> None:
        self._database = database
        self._timing = timing

    async def claim(self) -> Search | None:
        """Returns what to look for, if it is time and nobody else looks."""
        attempts, generations = tables.attempts.c, tables.generations.c
        async with self._database.write() as connection:
            gate = await connection.execute(
                select(tables.gates.c.paused_until).where(is_search_gate).with_for_update()
            )
            busy_until = gate.scalar_one()
            now = await read_clock(connection)
            is_due = await connection.execute(select(exists().where(attempts.search_at <= now)))
            if not is_due.scalar_one() or (busy_until is not None and now < busy_until):
                return None
            found = await connection.execute(
                select(tables.attempts, generations.fence)
                .join_from(tables.attempts, tables.generations)
                .where(attempts.search_at.is_not(None))
                .order_by(attempts.search_at)
                .limit(ATTEMPTS_MAX)
            )
            rows = found.all()
            if not rows:  # A webhook told of the last one just now.
                return None
            lease = timedelta(seconds=self._timing.search_lease_s)
            await connection.execute(
                update(tables.gates).where(is_search_gate).values(paused_until=now + lease)
            )
            under_way = await connection.execute(
                select(attempts.input)
                .join_from(tables.attempts, tables.generations)
                .where(tables.in_stage(Stage.SUBMITTING))
                .where(attempts.attempt == generations.attempt, attempts.state == "OPEN")
            )
            return Search(
                begun_at=now,
                machine_ahead_s=(datetime.now(UTC) - now).total_seconds(),
                lost=[
                    Lost(
                        generation_id=row.generation_id,
                        attempt=row.attempt,
                        input=json.loads(row.input),
                        send_before=row.send_before,
                        settled_at=row.settled_at,
                        searches=row.searches,
                        clean_searches=row.clean_searches,
                    )
                    for row in rows
                ],
                fences={row.generation_id: row.fence for row in rows},
                rivals=[json.loads(input_) for input_ in under_way.scalars()],
            )

    async def known(self, job_ids: Collection[str]) -> Collection[str]:
        """Returns which of these predictions are booked, for whichever generation."""
        columns = tables.predictions.c
        async with self._database.read() as connection:
            found = await connection.execute(
                select(columns.job_id).where(columns.job_id.in_(sorted(job_ids)))
            )
            return set(found.scalars())

    async def end(self, still_lost: Sequence[Lost]) -> None:
        """Lets others search, and notes the searches for what was not found."""
        async with self._database.write() as connection:
            await connection.execute(
                update(tables.gates).where(is_search_gate).values(paused_until=None)
            )
            now = await read_clock(connection)
            rows = [
                {
                    "of_generation": lost.generation_id,
                    "of_attempt": lost.attempt,
                    "searches": lost.searches,
                    "clean_searches": lost.clean_searches,
                    "search_at": next_search(lost, now, self._timing),
                }
                for lost in sorted(still_lost, key=lambda one: (one.generation_id, one.attempt))
            ]
            if rows:
                await connection.execute(_STILL_LOST, rows)
            for row in rows:
                if row["search_at"] is None:
                    logger.error("lost create never found", generation_id=row["of_generation"])


class Searcher:
    """Looks through the provider's list."""

    def __init__(
        self, searches: Searches, store: Store, provider: Replicate, callbacks: Callbacks
    ) -> None:
        self._searches = searches
        self._store = store
        self._provider = provider
        self._callbacks = callbacks

    async def search(self, timing: Timing) -> None:
        """Looks once for every lost create, and has what was found adopted."""
        search = await self._searches.claim()
        if search is None:
            return
        failpoint("search.claimed")
        listed = await self._list(search, time.monotonic() + timing.search_lease_s / 2)
        predictions = listed.predictions
        known = await self._searches.known({prediction.job_id for prediction in predictions})
        # What has lost its input may be what is looked for.
        is_clear = all(p.job_id in known for p in predictions if p.data_removed)
        still_lost = []
        for searched in match(
            search.lost, predictions, known, search.rivals, self._callbacks.attempt_in
        ):
            complete = is_clear and listed.covers(searched.lost)
            absent, clean = is_absent(
                searched, complete=complete, begun_at=search.begun_at, timing=timing
            )
            fence = search.fences[searched.lost.generation_id]
            try:
                if searched.found is not None:
                    await self._adopt(searched, searched.found, fence)
                    continue
                if absent:
                    await self._give_up(searched.lost, fence)
                    continue
            except ServiceError as error:
                # It stays lost, and what else was found is not lost with it.
                logger.warning("search not noted", reason=error.reason)
            else:
                searches = searched.lost.searches + 1
                still_lost.append(replace(searched.lost, searches=searches, clean_searches=clean))
        await self._searches.end(still_lost)

    async def _adopt(self, searched: Searched, found: Prediction, fence: int) -> None:
        failpoint("search.found")
        lost = searched.lost
        logger.warning("lost create found", generation_id=lost.generation_id, job_id=found.job_id)
        # Whatever the first is adopted for, the others are orphans.
        for prediction in (found, *searched.others):
            await self._store.happen(
                Happen(
                    lost.generation_id,
                    Submitted(lost.attempt, prediction, Source.SEARCH),
                    fence,
                    AttemptRecord(lost.attempt, "CREATED"),
                )
            )

    async def _give_up(self, lost: Lost, fence: int) -> None:
        logger.warning("lost create made nothing", generation_id=lost.generation_id)
        await self._store.happen(
            Happen(
                lost.generation_id,
                SubmitAbsent(lost.attempt),
                fence,
                AttemptRecord(lost.attempt, "ABSENT", detail="not in the provider's list"),
            )
        )
        failpoint("search.absent")

    async def _list(self, search: Search, give_up_at: float) -> Listed:
        """Returns what the provider lists, back to the first lost create or to a limit."""
        send_before = min(lost.send_before for lost in search.lost)
        since, cursor = send_before - LOOK_BACK, None
        # The provider's clock as seen from the database's, by which creates are dated.
        behind = timedelta()
        predictions: list[Prediction] = []
        is_readable = True
        for _ in range(PAGES_MAX):
            page = await self._provider.list_since(since, cursor)
            if isinstance(page, Unreachable):
                logger.warning("predictions not listed", detail=page.detail)
                return Listed(predictions, None, is_readable=False)
            ahead_s = page.clock_ahead_s + search.machine_ahead_s
            if cursor is None and not behind and ahead_s < -CLOCK_BEHIND_S_MAX:
                behind = timedelta(seconds=-ahead_s)
                since -= behind
                continue
            predictions += page.predictions
            is_readable = is_readable and page.complete
            cursor = page.next_cursor
            if cursor is None:
                return Listed(predictions, None, is_readable)
            if time.monotonic() > give_up_at:
                break
        logger.warning("list of predictions is long", read=len(predictions))
        oldest = predictions[-1].created_at if predictions else None
        if oldest is None:
            return Listed(predictions, None, is_readable=False)
        return Listed(predictions, oldest + behind, is_readable)


_STILL_LOST = update(tables.attempts).where(
    tables.attempts.c.generation_id == bindparam("of_generation"),
    tables.attempts.c.attempt == bindparam("of_attempt"),
    tables.attempts.c.state == "UNKNOWN",
)
