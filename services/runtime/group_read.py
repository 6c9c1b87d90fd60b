"""Answers many readers by one query: whoever asked while the last one ran.

There is no timer: a lone reader is served at once, and under load the queries grow by themselves.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Generic, TypeVar

from services.runtime.errors import Overloaded

__all__ = ["GroupRead"]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class GroupRead(Generic[_Key, _Value]):
    """Finds values by their keys; those who ask for the same one share it.

    `read` gets the keys and returns what it finds of them. It begins after the last of them was
    asked for, so that everybody sees what was written before they asked; it is not run twice at a
    time. What it raises is raised to all whose keys it got.
    """

    def __init__(
        self,
        read: Callable[[Collection[_Key]], Awaitable[Mapping[_Key, _Value]]],
        *,
        batch_max: int = 256,
        queue_max: int = 10_000,
    ) -> None:
        self._read = read
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._queue: dict[_Key, asyncio.Future[_Value | None]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def find(self, key: _Key) -> _Value | None:
        """Returns the value of a key as it is now; None if there is none.

        Raises Overloaded when too many wait, and what the query raises.
        """
        answer = self._queue.get(key)
        if answer is None:
            if len(self._queue) >= self._queue_max:
                raise Overloaded("SERVICE_OVERLOADED", "Too many reads wait.")
            answer = self._queue[key] = asyncio.get_running_loop().create_future()
        if self._reader is None:
            self._reader = asyncio.create_task(self._read_all())
        # Others may wait for the same, so who leaves does not cancel it.
        return await asyncio.shield(answer)

    async def _read_all(self) -> None:
        """Reads until nobody waits."""
        try:
            while self._queue:
                keys = list(self._queue)[: self._batch_max]
                await self._answer({key: self._queue.pop(key) for key in keys})
        finally:
            self._reader = None

    async def _answer(self, batch: Mapping[_Key, asyncio.Future[_Value | None]]) -> None:
        try:
            found = await self._read(batch.keys())
        except Exception as error:  # noqa: BLE001  Whatever it is, it is theirs who asked.
            for answer in batch.values():
                answer.set_exception(error)
        else:
            for key, answer in batch.items():
                answer.set_result(found.get(key))
