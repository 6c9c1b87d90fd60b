"""Gives back what reservations hold whose time is over and that nobody resolved."""

import asyncio
import random

from services.credits.commands import Expire
from services.credits.reads import LedgerReads, ReservationPlace
from services.credits.store import CreditsStore, Done
from services.runtime.errors import ServiceError
from services.runtime.telemetry import get_logger

__all__ = ["OVERDUE_S", "Sweeper"]

SWEEP_S = 30.0
"""Seconds between two sweeps, more or less by a fifth, so that replicas do not sweep in step."""
JITTER = 0.2
OVERDUE_S = 2 * SWEEP_S * (1 + JITTER)
"""Two sweeps: what is due for longer, nobody sweeps."""
PAGE = 200

logger = get_logger(__name__)


class Sweeper:
    """Expires what is due, again and again.

    It locks nothing: whether a reservation is still open and due, the writer decides, so two
    sweepers do no harm.
    """

    def __init__(
        self,
        reads: LedgerReads,
        store: CreditsStore,
        stopping: asyncio.Event,
        interval_s: float = SWEEP_S,
    ) -> None:
        self._reads = reads
        self._store = store
        self._stopping = stopping
        self._interval_s = interval_s

    async def run(self) -> None:
        """Sweeps until the process stops."""
        while not self._stopping.is_set():
            try:
                expired = await self.sweep()
                if expired:
                    logger.info("reservations expired", reservations=expired)
            except ServiceError as error:
                logger.warning("reservations not swept", reason=error.reason)
            except Exception:  # A defect here must not stop the calls that are answered meanwhile.
                logger.exception("reservations not swept")
            pause_s = self._interval_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  Jitter.
            try:
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    async def sweep(self) -> int:
        """Expires all that is due, a page at a time; returns how many reservations it expired.

        One that fails is left to the next sweep. Raises Unavailable when the database is away.
        """
        expired = 0
        last: ReservationPlace | None = None
        while not self._stopping.is_set():
            due = await self._reads.due_reservations(PAGE, last)
            expired += sum(await asyncio.gather(*map(self._expire, due)))
            if len(due) < PAGE:
                break
            last = due[-1]
        return expired

    async def _expire(self, place: ReservationPlace) -> bool:
        """Tells whether this call expired a reservation."""
        try:
            answer = await self._store.submit(Expire(place.user_id, place.reservation_id))
        except ServiceError as error:
            logger.warning(
                "reservation not expired",
                user_id=place.user_id,
                reservation_id=place.reservation_id,
                reason=error.reason,
            )
            return False
        return isinstance(answer, Done) and not answer.replayed
