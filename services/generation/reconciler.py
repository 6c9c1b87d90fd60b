"""Compares, now and again, what generations say about money with what the ledger says.

Whatever it finds is a fault somewhere else, since every generation settles its own reservation. It
repairs what can be repaired safely, and an error in the log tells of each fault.
"""

import asyncio
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import assert_never

from services.generation.events import Committed, Refunded
from services.generation.history import End, History
from services.generation.reconciliation import (
    Finding,
    ReconcilePolicy,
    Remedy,
    Reservation,
    judge_completed,
    judge_open,
)
from services.generation.reservations import Reservations
from services.generation.settlement import Settlement
from services.generation.state import Generation
from services.runtime.errors import ServiceError
from services.runtime.telemetry import get_logger

__all__ = ["Reconciler"]

LOOK_BACK = timedelta(hours=24)
SETTLED = timedelta(seconds=10)
"""An end is visible a little after the time that it carries; what is newer waits for the next."""
PAGE_SIZE = 500
PAGES_MAX = 40
"""In one pass; the next goes on where it ended."""

logger = get_logger(__name__)


class Reconciler:
    """Looks for money that its generation has forgotten, until `stopping` is set."""

    def __init__(
        self,
        history: History,
        reservations: Reservations,
        settlement: Settlement,
        policy: ReconcilePolicy,
        stopping: asyncio.Event,
    ) -> None:
        self._history = history
        self._reservations = reservations
        self._settlement = settlement
        self._policy = policy
        self._stopping = stopping
        self._checked: End | None = None

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
        """Makes one pass: over the open reservations, then over the completed generations.

        Raises ServiceError where the database or the credits service is away.
        """
        now = await self._history.clock()
        before = now - timedelta(seconds=self._policy.age_s)
        try:
            async for page in self._reservations.open_before(before):
                await self._check_open(page, now)
        except ServiceError:
            # One half that cannot be read must not keep the other from being looked at.
            await self._check_completed(now)
            raise
        await self._check_completed(now)

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

    async def _check_open(self, page: Sequence[Reservation], now: datetime) -> None:
        """Looks at reservations that are still open after a long time."""
        generations = await self._history.named([r.reservation_id for r in page])
        for reservation in page:
            # Ids of reservations are unique for their user only, so another's is not this one's.
            own = generations.get(reservation.reservation_id)
            if own is not None and own.user_id != reservation.user_id:
                own = None
            finding = judge_open(own, now)
            if finding is None:
                continue
            # Read again after the generation, or one that ended in between would look like a fault.
            latest = await self._reservations.find(reservation.user_id, reservation.reservation_id)
            if latest is not None and latest.is_open:
                await self._treat(finding, latest, own)

    async def _treat(
        self, finding: Finding, reservation: Reservation, generation: Generation | None
    ) -> None:
        """Reports a fault, and repairs it if that is safe."""
        _report(finding, reservation.user_id, reservation.reservation_id, reservation, generation)
        if generation is None:
            return
        match finding.remedy:
            case Remedy.REFUND:
                outcome = await self._settlement.refund(generation)
            case Remedy.COMMIT:
                outcome = await self._settlement.commit(generation)
            case Remedy.REPORT:
                return
            case unreachable:
                assert_never(unreachable)
        logger.warning(
            "repaired" if isinstance(outcome, Committed | Refunded) else "not repaired",
            generation_id=generation.generation_id,
            finding=finding,
        )

    async def _check_completed(self, now: datetime) -> None:
        """Looks whether the videos of the last day are paid, each once: a payment is for good."""
        # However long credits was away, nothing that ended meanwhile is passed over.
        since = self._checked or End(now - LOOK_BACK)
        for _ in range(PAGES_MAX):
            page = await self._history.completed(since, now - SETTLED, PAGE_SIZE)
            for generation in page:
                user_id, generation_id = generation.user_id, generation.generation_id
                reservation = await self._reservations.find(user_id, generation_id)
                finding = judge_completed(generation, reservation)
                if finding is not None:
                    _report(finding, user_id, generation_id, reservation, generation)
                if generation.finished_at is not None:
                    since = self._checked = End(generation.finished_at, generation_id)
            if len(page) < PAGE_SIZE:
                return


def _report(
    finding: Finding,
    user_id: str,
    generation_id: str,
    reservation: Reservation | None,
    generation: Generation | None,
) -> None:
    logger.error(
        "money and work disagree",
        finding=finding,
        remedy=finding.remedy,
        user_id=user_id,
        generation_id=generation_id,
        stage=None if generation is None else generation.stage,
        reservation=None if reservation is None else reservation.state,
    )
