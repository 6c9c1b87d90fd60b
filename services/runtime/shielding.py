"""Lets work that belongs to nobody's call run to its end."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["Shielded"]

_Result = TypeVar("_Result")


class Shielded:
    """Keeps tasks alive although their callers leave, and waits for them when the process does."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def finish(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Returns what `work` returns; it runs on even if the caller of this is canceled."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    async def drain(self) -> None:
        """Waits until all work has ended; its errors went to whoever awaited it."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # Marks it as seen: its caller may have left before it was raised.
