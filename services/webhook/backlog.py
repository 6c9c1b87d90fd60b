"""Measures again and again what waits in the inbox."""

import asyncio

from services.runtime.errors import ServiceError
from services.runtime.telemetry import get_logger
from services.webhook.events import Events
from services.webhook.metrics import WebhookMetrics

__all__ = ["BacklogWatch"]

INTERVAL_S = 5.0

logger = get_logger(__name__)


class BacklogWatch:
    """Keeps the measures of the backlog up to date while `run` runs."""

    def __init__(
        self, events: Events, metrics: WebhookMetrics, interval_s: float = INTERVAL_S
    ) -> None:
        self._events = events
        self._metrics = metrics
        self._interval_s = interval_s

    async def run(self) -> None:
        """Measures as long as it runs; while the database is away the last measures stay."""
        while True:
            try:
                self._metrics.waits(await self._events.backlog())
            except ServiceError as error:
                logger.warning("backlog not measured", reason=error.reason)
            await asyncio.sleep(self._interval_s)
