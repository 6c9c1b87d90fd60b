"""Removes what nobody shall have any more: deleted and old videos, unused images, old events."""

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta

from services.generation.archive import output_key, thumbnail_key
from services.generation.history import Place
from services.generation.image_records import ImageRecords
from services.generation.removals import Removals
from services.generation.state import Generation
from services.runtime.errors import ServiceError
from services.runtime.storage import Storage, StorageFailed
from services.runtime.telemetry import get_logger

__all__ = ["Erasure"]

SWEEP_S = 60.0
TROUBLE_S_MAX = 900.0
JITTER = 0.2
"""So that replicas do not sweep in step."""
PAGE = 16
"""What is claimed at once; its files are removed well within the claim's lease."""
FAILURES_MAX = 3
"""In one sweep; as many mean that it is not the files but the storage."""
SCHEDULE_PAGE = 500
EVENTS_KEPT = timedelta(days=7)
"""Of the provider's events, longer than anyone delivers one again."""
EVENTS_PAGE = 500

logger = get_logger(__name__)


class Erasure:
    """Sweeps until `stopping` is set; `retention` is the age at which videos go, None for never.

    Replicas share the work: each claims what it removes. Removing twice does no harm, so whatever
    fails, or is under way when the process ends, is simply claimed again later.
    """

    def __init__(
        self,
        removals: Removals,
        images: ImageRecords,
        storage: Storage,
        retention: timedelta | None,
        on_change: Callable[[Generation], None],
        stopping: asyncio.Event,
        interval_s: float = SWEEP_S,
    ) -> None:
        self._removals = removals
        self._images = images
        self._storage = storage
        self._retention = retention
        self._on_change = on_change
        self._stopping = stopping
        self._interval_s = interval_s
        self._looked_at: Place | None = None
        self._is_backlog_known = retention is None
        self._failures = 0

    async def run(self) -> None:
        """Sweeps in every interval, and less often while storage or database are away."""
        pause_s = self._interval_s
        while not self._stopping.is_set():
            try:
                await self.sweep()
                pause_s = self._interval_s
            except (ServiceError, StorageFailed) as error:
                pause_s = min(pause_s * 2, max(TROUBLE_S_MAX, self._interval_s))
                logger.warning("files not removed", detail=str(error), again_in_s=pause_s)
            except Exception:  # A defect here must not stop the work that users wait for.
                pause_s = max(TROUBLE_S_MAX, self._interval_s)
                logger.exception("files not removed")
            jittered_s = pause_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
            try:
                async with asyncio.timeout(jittered_s):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    async def sweep(self) -> None:
        """Removes all that is due, until the process is to stop.

        Raises StorageFailed while storage is away, Unavailable while the database is.
        """
        self._failures = 0
        await self._schedule_by_today()
        while not self._stopping.is_set():
            # What is due by another setting, of the past or of another replica, is not removed.
            if await self._removals.postpone(self._retention, SCHEDULE_PAGE) < SCHEDULE_PAGE:
                break
        while not self._stopping.is_set() and await self._erase_videos():
            pass
        while not self._stopping.is_set() and await self._remove_images():
            pass
        while not self._stopping.is_set():
            if await self._removals.prune_events(EVENTS_KEPT, EVENTS_PAGE) < EVENTS_PAGE:
                break

    async def _schedule_by_today(self) -> None:
        """Once a process, has what ended under a longer setting go by today's."""
        while self._retention is not None and not self._is_backlog_known:
            self._looked_at = await self._removals.schedule(
                self._retention, self._looked_at, SCHEDULE_PAGE
            )
            self._is_backlog_known = self._looked_at is None

    async def _erase_videos(self) -> bool:
        """Returns whether there may be more."""
        claimed = await self._removals.claim_due(self._retention, PAGE)
        erased: list[str] = []
        try:
            for generation in claimed:
                # By the names that files have, not those that the row knows: what was stored just
                # before its process died is there all the same.
                place = (generation.user_id, generation.generation_id)
                if await self._removed(output_key(*place), thumbnail_key(*place)):
                    erased.append(generation.generation_id)
        finally:
            for changed in await self._removals.finish(erased):
                logger.info("video removed", generation_id=changed.generation_id)
                self._on_change(changed)
        return len(claimed) == PAGE

    async def _remove_images(self) -> bool:
        """Returns whether there may be more."""
        claimed = await self._images.claim_expired(PAGE)
        for record in claimed:
            if await self._removed(record.key):
                await self._images.forget([record.image_id])
                logger.info("image removed", image_id=record.image_id)
        return len(claimed) == PAGE

    async def _removed(self, *keys: str) -> bool:
        """Tells whether files were removed; raises StorageFailed after a few that were not.

        One file that cannot be removed must not keep the others; its claim ends, and it is tried
        again.
        """
        try:
            for key in keys:
                await self._storage.delete(key)
        except StorageFailed as error:
            self._failures += 1
            if self._failures >= FAILURES_MAX:
                raise
            logger.warning("files not removed", keys=keys, detail=str(error))
            return False
        return True
