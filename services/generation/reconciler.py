"""Compares, now and again, what generations say about money with what the ledger says.

Whatever it finds is a fault somewhere else, since every generation settles its own reservation. It
repairs what can be repaired safely. The log tells of each fault when it appears and when it is
gone, once a process; `latest` counts those that stand.
"""

import asyncio
import random
from collections import Counter
from datetime import datetime, timedelta
from typing import TypeAlias, assert_never

from services.generation.bookmark import Bookmark
from services.generation.events import Committed, Refunded
from services.generation.history import History, Place
from services.generation.reconciliation import (
    OVERDUE_AFTER,
    Finding,
    ReconcilePolicy,
    Reconciliation,
    Remedy,
    Reservation,
    judge,
    may_be_a_generation,
)
from services.generation.reservations import Reservations
from services.generation.settlement import Settlement
from services.generation.state import Generation, Stage
from services.runtime.errors import (
    Conflict,
    DeadlineExceeded,
    Overloaded,
    ServiceError,
    Unavailable,
)
from services.runtime.telemetry import get_logger

__all__ = ["Reconciler"]

LOOK_BACK = timedelta(hours=24)
"""How far back a new process looks again, to know of the faults that stand.

How far all ends were looked at is kept in the database, so whatever no process could look at is
looked at too, however long ago it ended.
"""
VISIBLE_AFTER = timedelta(minutes=15)
"""An end can become visible so long after the time that it carries; what is newer waits.

Eight statements at the most, the SQL COMMIT among them, follow the reading of the clock in a
database transaction. Each may take 3 s, and the database ends one that stands still for 15 s
between two: 3 minutes. The clock itself may be set back by five, as by a failover.
"""
LOOKED_AT_MAX = 20_000
"""Of each kind, in one pass; of what has ended, the next pass goes on there.

That is 66 a second with the usual interval, while 10 a second can be submitted. Of what is open
only those count that seem wrong and are not known to be.
"""
FAULTS_MAX = 10_000
"""Remembered at once; of those above only the number is told, in each pass."""
UNREADABLE_MAX = 100
"""Of more the credits service itself is at fault, and no end is passed over."""

_OUTAGES = (Conflict, DeadlineExceeded, Overloaded, Unavailable)
_Key: TypeAlias = tuple[str, str]
"""The ids of a user and of a generation of theirs."""

logger = get_logger(__name__)


class Reconciler:
    """Looks for money that its generation has forgotten, until `stopping` is set."""

    def __init__(
        self,
        history: History,
        bookmark: Bookmark,
        reservations: Reservations,
        settlement: Settlement,
        policy: ReconcilePolicy,
        stopping: asyncio.Event,
    ) -> None:
        self._history = history
        self._bookmark = bookmark
        self._reservations = reservations
        self._settlement = settlement
        self._policy = policy
        self._stopping = stopping
        self._standing: dict[_Key, Finding] = {}
        self._faults_beyond = 0
        self._checked: Place | None = None
        self._latest: Reconciliation | None = None

    @property
    def latest(self) -> Reconciliation | None:
        """What the last whole pass of this process left; None before the first."""
        return self._latest

    async def run(self) -> None:
        """Makes a pass in every interval; what is under way when `stopping` is set is dropped.

        Every step of it can be repeated, so the next process begins anew.
        """
        passing = asyncio.create_task(self._repeat())
        try:
            await self._stopping.wait()
        finally:
            passing.cancel()
            await asyncio.gather(passing, return_exceptions=True)

    async def reconcile(self) -> None:
        """Makes one pass.

        Raises ServiceError where the database or the credits service is away.
        """
        now = await self._history.clock()
        trouble = None
        self._faults_beyond = 0
        for look in (
            self._look_again,
            self._look_at_ended,
            self._look_at_parked,
            self._look_at_overdue,
            # Last, since other products' open reservations can be any number.
            self._look_at_open,
        ):
            try:
                await look(now)
            except ServiceError as error:
                # One part that cannot be read must not keep the others from being looked at.
                trouble = error
        if self._faults_beyond:
            logger.error("more faults than are remembered", faults=self._faults_beyond)
        if trouble is not None:
            raise trouble
        until = await self._bookmark.read()
        self._latest = Reconciliation(now, until, Counter(self._standing.values()))

    async def _repeat(self) -> None:
        while True:
            # Replicas that start together soon look at different moments.
            await asyncio.sleep(self._policy.interval_s * random.uniform(0.8, 1.2))  # noqa: S311
            try:
                await self.reconcile()
            except ServiceError as error:
                logger.warning("not reconciled", reason=error.reason or error.status.name)
            except Exception:  # A defect here must not stop the work that it looks after.
                logger.exception("not reconciled")

    async def _look_again(self, now: datetime) -> None:
        """Looks whether the faults that are known still stand."""
        for user_id, generation_id in list(self._standing):
            generation = await self._history.find(user_id, generation_id)
            await self._compare(user_id, generation_id, generation, now)

    async def _look_at_open(self, now: datetime) -> None:
        """Looks at reservations that are still open after a long time."""
        before = now - timedelta(seconds=self._policy.age_s)
        looked_at = 0
        async for page in self._reservations.open_before(before):
            ours = [one for one in page if may_be_a_generation(one.reservation_id)]
            generations = await self._history.named([one.reservation_id for one in ours])
            for reservation in ours:
                # Reservations' ids are unique for their user only: another's is not this one's.
                own = generations.get(reservation.reservation_id)
                if own is not None and own.user_id != reservation.user_id:
                    own = None
                key = (reservation.user_id, reservation.reservation_id)
                if judge(own, reservation, now) is None or key in self._standing:
                    continue
                if looked_at == LOOKED_AT_MAX:
                    logger.error("more open reservations seem wrong than a pass looks at")
                    return
                await self._compare(*key, own, now)
                looked_at += 1

    async def _look_at_parked(self, now: datetime) -> None:
        """Looks at what waits for an operator, also when its reservation has expired meanwhile."""
        async for generation in self._history.parked(LOOKED_AT_MAX):
            await self._meet(generation.user_id, generation.generation_id, generation, now)

    async def _look_at_overdue(self, now: datetime) -> None:
        """Looks at what should have ended, also when its price was committed meanwhile."""
        async for generation in self._history.overdue(now - OVERDUE_AFTER, LOOKED_AT_MAX):
            await self._meet(generation.user_id, generation.generation_id, generation, now)

    async def _look_at_ended(self, now: datetime) -> None:
        """Looks at what has ended since the last pass, each once: a settled price is for good."""
        if self._checked is None:
            self._checked = Place(min(await self._bookmark.read(), now - LOOK_BACK))
        until, looked_at = now - VISIBLE_AFTER, 0
        async for generation in self._history.ended(self._checked, until, LOOKED_AT_MAX):
            await self._meet(generation.user_id, generation.generation_id, generation, now)
            assert generation.finished_at is not None, "it has ended"
            self._checked = Place(generation.finished_at, generation.generation_id)
            looked_at += 1
        is_behind = looked_at == LOOKED_AT_MAX
        await self._bookmark.move(self._checked.moment if is_behind else until)

    async def _meet(
        self, user_id: str, generation_id: str, generation: Generation | None, now: datetime
    ) -> None:
        """Compares a generation, unless its fault is known: this pass has looked at that again."""
        if (user_id, generation_id) not in self._standing:
            await self._compare(user_id, generation_id, generation, now)

    async def _compare(
        self, user_id: str, generation_id: str, generation: Generation | None, now: datetime
    ) -> None:
        """Compares a generation, None if there is none, with its reservation as it is now.

        What is wrong is told if it is new, and repaired if that is safe.
        """
        key = (user_id, generation_id)
        reservation = None
        try:
            reservation = await self._reservations.find(user_id, generation_id)
        except _OUTAGES:
            raise
        except ServiceError:
            # This one must not keep the others from being looked at, unless it is but one of many.
            unreadable = sum(one is Finding.UNREADABLE for one in self._standing.values())
            if key not in self._standing and unreadable >= UNREADABLE_MAX:
                raise
            finding: Finding | None = Finding.UNREADABLE
        else:
            finding = judge(generation, reservation, now)
        if finding is None:
            if self._standing.pop(key, None) is not None:
                logger.info("money and work agree again", generation_id=generation_id)
            return
        latest = await self._history.find(user_id, generation_id)
        if _stage_of(latest) is not _stage_of(generation):
            return  # It went on meanwhile, which looks like a fault and is none.
        if key not in self._standing and len(self._standing) >= FAULTS_MAX:
            self._faults_beyond += 1
        elif self._standing.get(key) is not finding:
            _report(finding, user_id, generation_id, reservation, generation)
            self._standing[key] = finding
        if generation is not None and await self._repair(finding, generation):
            self._standing.pop(key, None)

    async def _repair(self, finding: Finding, generation: Generation) -> bool:
        """Repairs a fault if that is safe; tells whether it did."""
        match finding.remedy:
            case Remedy.REFUND:
                outcome = await self._settlement.refund(generation)
            case Remedy.COMMIT:
                outcome = await self._settlement.commit(generation)
            case Remedy.REPORT:
                return False
            case unreachable:
                assert_never(unreachable)
        is_repaired = isinstance(outcome, Committed | Refunded)
        logger.warning(
            "repaired" if is_repaired else "not repaired",
            generation_id=generation.generation_id,
            finding=finding,
        )
        return is_repaired


def _stage_of(generation: Generation | None) -> Stage | None:
    return None if generation is None else generation.stage


def _report(
    finding: Finding,
    user_id: str,
    generation_id: str,
    reservation: Reservation | None,
    generation: Generation | None,
) -> None:
    # What matches nothing may well be another product's, which is no fault at all.
    log = logger.warning if finding is Finding.UNMATCHED else logger.error
    log(
        "money and work disagree",
        finding=finding,
        remedy=finding.remedy,
        user_id=user_id,
        generation_id=generation_id,
        stage=_stage_of(generation),
        reservation=None if reservation is None else reservation.state,
    )
