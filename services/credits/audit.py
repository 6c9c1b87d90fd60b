"""Verifies the ledger again and again, a part at a time, and shows what stands in it."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from services.credits.metrics import CreditsMetrics
from services.credits.reads import LedgerReads
from services.credits.records import INVARIANTS, Violation
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
LISTED_MAX = 100
"""Violations of a verification of the whole ledger that the log names; those above are counted."""

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Findings:
    """What a verification of the whole ledger has found so far."""

    listed: dict[Violation, None] = field(default_factory=dict)
    above: Counter[str] = field(default_factory=Counter)
    """How many more there are, by the rule that they break."""

    def add(self, violation: Violation) -> bool:
        """Tells whether there was room to list it."""
        if len(self.listed) < LISTED_MAX:
            self.listed[violation] = None
            return True
        self.above[violation.invariant] += 1
        return False


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
        self._found = _Findings()
        self._standing = _Findings()

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
        for violation in part.violations:
            if self._found.add(violation) and violation not in self._standing.listed:
                logger.error("ledger", invariant=violation.invariant, detail=violation.detail)
        is_whole = part.next_first is None
        if is_whole:
            if self._found.above:
                logger.error(
                    "ledger, and more than is listed", violations=self._found.above.total()
                )
            self._standing, self._found = self._found, _Findings()
            self._metrics.verified(datetime.now(UTC))
        self._metrics.disagrees(self._disagreements())
        self._first = part.next_first or ""
        took_s = time.monotonic() - began
        return max(took_s / SHARE_MAX, self._pass_s if is_whole else PART_S_MIN)

    def _disagreements(self) -> dict[str, int]:
        """Returns how often each rule is broken.

        What was found counts at once, and until a whole verification finds it no more.
        """
        before, now = self._standing, self._found
        listed = Counter(violation.invariant for violation in before.listed | now.listed)
        return {
            name: listed[name] + max(before.above[name], now.above[name]) for name in INVARIANTS
        }

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
