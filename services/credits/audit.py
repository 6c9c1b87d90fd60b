"""Verifies the ledger again and again, a part at a time, and shows what stands in it."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from services.credits.metrics import CreditsMetrics
from services.credits.reads import LedgerReads
from services.credits.records import Violation
from services.credits.verification import Verifier
from services.runtime.errors import ServiceError
from services.runtime.telemetry import get_logger

__all__ = ["Audit"]

FIGURES_S = 15.0
"""Between two looks at what is set aside."""
PASS_S = 60.0
"""Between two verifications of the whole ledger, if it is small."""
SHARE_MAX = 0.05
"""Of the time of one connection, which verifying may take."""
PART_S_MIN = 0.2
"""Between two parts."""
JITTER = 0.2
OVERDUE = timedelta(minutes=5)

logger = get_logger(__name__)


class Audit:
    """Looks after the ledger until `stopping` is set; it only reads.

    Every replica goes through all of it by and by, but never two at a time.
    """

    def __init__(
        self,
        reads: LedgerReads,
        verifier: Verifier,
        metrics: CreditsMetrics,
        stopping: asyncio.Event,
        figures_s: float = FIGURES_S,
        pass_s: float = PASS_S,
    ) -> None:
        self._reads = reads
        self._verifier = verifier
        self._metrics = metrics
        self._stopping = stopping
        self._figures_s = figures_s
        self._pass_s = pass_s
        self._first = ""
        self._found: list[Violation] = []
        self._standing: tuple[Violation, ...] = ()

    async def run(self) -> None:
        """Looks until the process stops."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self._read_figures))
            tasks.create_task(self._repeat(self.verify_part))

    async def verify_part(self) -> float:
        """Verifies the next part, and returns after how many seconds it is the turn of another."""
        began = time.monotonic()
        part = await self._verifier.verify_part(self._first)
        if part is None:
            return self._pass_s
        known = {*self._standing, *self._found}
        for violation in part.violations:
            if violation not in known:
                logger.error("ledger", invariant=violation.invariant, detail=violation.detail)
        self._found += part.violations
        is_whole = part.next_first is None
        if is_whole:
            self._standing, self._found = tuple(self._found), []
            self._metrics.verified(datetime.now(UTC))
        # What was found is shown at once, and until a whole verification finds it no more.
        self._metrics.disagrees(tuple({*self._standing, *self._found}))
        self._first = part.next_first or ""
        took_s = time.monotonic() - began
        return max(took_s / SHARE_MAX, self._pass_s if is_whole else PART_S_MIN)

    async def _read_figures(self) -> float:
        self._metrics.stands(await self._reads.open_reservations(OVERDUE), datetime.now(UTC))
        return self._figures_s

    async def _repeat(self, look: Callable[[], Awaitable[float]]) -> None:
        while not self._stopping.is_set():
            pause_s = self._pass_s
            try:
                pause_s = await look()
            except ServiceError as error:
                logger.warning("ledger not looked at", reason=error.reason)
            except Exception:  # A defect here must not stop the calls that are answered meanwhile.
                logger.exception("ledger not looked at")
            pause_s *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  Jitter.
            try:
                async with asyncio.timeout(pause_s):
                    await self._stopping.wait()
            except TimeoutError:
                pass
