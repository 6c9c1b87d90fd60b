"""Reads again and again what is under way, for those who watch over the service."""

import asyncio
import random
from collections.abc import Callable

from services.generation.metrics import GenerationMetrics
from services.generation.queue import Queue
from services.generation.reconciliation import Reconciliation
from services.generation.statistics import Statistics
from services.runtime.errors import ServiceError
from services.runtime.telemetry import get_logger

__all__ = ["Figures"]

INTERVAL_S = 5.0
TROUBLE_S = 30.0
JITTER = 0.2

logger = get_logger(__name__)


class Figures:
    """Keeps the measures of what is under way up to date until `stopping` is set."""

    def __init__(
        self,
        statistics: Statistics,
        queue: Queue,
        latest: Callable[[], Reconciliation | None],
        metrics: GenerationMetrics,
        stopping: asyncio.Event,
        interval_s: float = INTERVAL_S,
    ) -> None:
        """Takes what tells of the latest comparison with the ledger."""
        self._statistics = statistics
        self._queue = queue
        self._latest = latest
        self._metrics = metrics
        self._stopping = stopping
        self._interval_s = interval_s

    async def run(self) -> None:
        """Reads until the process stops; while the database is away the last figures stay."""
        while not self._stopping.is_set():
            pause_s = self._interval_s
            try:
                await self._read()
            except ServiceError as error:
                logger.warning("figures not read", reason=error.reason)
            except Exception:  # A defect here must not stop the calls that are answered meanwhile.
                logger.exception("figures not read")
                pause_s = TROUBLE_S
            try:
                async with asyncio.timeout(pause_s * random.uniform(1 - JITTER, 1 + JITTER)):  # noqa: S311
                    await self._stopping.wait()
            except TimeoutError:
                pass

    async def _read(self) -> None:
        figures = await self._statistics.read_open()
        line = await self._queue.line()
        self._metrics.stands(figures, line.times)
        latest = self._latest()
        if latest is not None:
            self._metrics.reconciled(latest)
