"""Runs work beside the requests and ends it with the process."""

import asyncio
from collections.abc import Coroutine

from services.runtime.telemetry import get_logger

__all__ = ["BackgroundTasks"]

_log = get_logger(__name__)


class BackgroundTasks:
    """The running tasks; one that fails is logged and takes no other with it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Starts `work` and returns its task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def cancel_all(self) -> None:
        """Cancels every task and waits until all have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            _log.error("background task failed", exc_info=failure)
