"""Reads together: whoever asked while a query ran shares the next one, and sees what is new."""

import asyncio
from collections.abc import Collection

import pytest

from services.runtime.errors import Overloaded, Unavailable
from services.runtime.group_read import GroupRead


class Shelf:
    """Values to be read, by queries that can be held up."""

    def __init__(self) -> None:
        self.values = {"a": 1, "b": 2}
        self.queries: list[list[str]] = []
        self.troubles: list[Exception] = []
        """Raised by the next queries, one each."""
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()

    async def read(self, keys: Collection[str]) -> dict[str, int]:
        self.queries.append(list(keys))
        found = {key: self.values[key] for key in keys if key in self.values}
        self.entered.set()
        await self.go_on.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        return found


async def begun(shelf: Shelf, reads: GroupRead[str, int]) -> "asyncio.Task[int | None]":
    """Returns a read whose query runs, and is held up."""
    first = asyncio.create_task(reads.find("a"))
    await shelf.entered.wait()
    return first


async def test_a_lone_read_is_made_at_once_and_those_that_wait_together() -> None:
    shelf = Shelf()
    reads = GroupRead(shelf.read, batch_max=2)

    first = await begun(shelf, reads)
    others = [asyncio.create_task(reads.find(key)) for key in ("b", "a", "b", "c")]
    await asyncio.sleep(0)
    shelf.values["a"] = 10
    shelf.go_on.set()

    assert await asyncio.gather(first, *others) == [1, 2, 10, 2, None]
    assert shelf.queries == [["a"], ["b", "a"], ["c"]]


async def test_an_error_is_raised_to_those_whose_keys_were_read_and_to_nobody_else() -> None:
    shelf = Shelf()
    shelf.troubles = [Unavailable("DATABASE_UNAVAILABLE", "Away.")]
    reads = GroupRead(shelf.read)

    first = await begun(shelf, reads)
    second = asyncio.create_task(reads.find("b"))
    await asyncio.sleep(0)
    shelf.go_on.set()

    with pytest.raises(Unavailable):
        await first
    assert await second == 2
    assert await reads.find("a") == 1


async def test_who_leaves_takes_nobodys_answer_along() -> None:
    shelf = Shelf()
    reads = GroupRead(shelf.read)

    first = await begun(shelf, reads)
    leaving, staying = (asyncio.create_task(reads.find("b")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    leaving.cancel()
    shelf.go_on.set()

    assert await staying == 2
    assert first.cancelled()
    assert leaving.cancelled()


async def test_above_the_bound_reads_are_refused() -> None:
    shelf = Shelf()
    reads = GroupRead(shelf.read, queue_max=1)

    first = await begun(shelf, reads)
    second = asyncio.create_task(reads.find("b"))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await reads.find("c")
    shelf.go_on.set()

    assert (await first, await second) == (1, 2)
