"""Writes whole database transactions to a SQLite file in one thread."""

import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, Engine

__all__ = ["WriterThread"]

SWITCH_INTERVAL_S = 0.0005
"""Python's own is ten times as long, and a batch waits for it after each statement."""

_Result = TypeVar("_Result")


class WriterThread:
    """A thread with a connection of its own; both are made when they are first needed."""

    def __init__(self, engine: Engine) -> None:
        self.turn = asyncio.Lock()
        """Held by whoever writes: SQLite itself serves those who wait for it in no order."""
        self._engine = engine
        self._executor = ThreadPoolExecutor(
            1,
            thread_name_prefix="writer",
            # From then on a busy event loop gives way soon, so that batches end soon.
            initializer=sys.setswitchinterval,
            initargs=(SWITCH_INTERVAL_S,),
        )

    async def transact(self, work: Callable[[Connection], _Result]) -> _Result:
        """Returns what `work` returns, in a database transaction that is committed behind it.

        A caller that leaves does not stop it.
        """
        async with self.turn:
            return await asyncio.get_running_loop().run_in_executor(
                self._executor, self._transact, work
            )

    async def close(self) -> None:
        """Closes the connection once it is idle."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._engine.dispose)
        self._executor.shutdown()

    def _transact(self, work: Callable[[Connection], _Result]) -> _Result:
        with self._engine.begin() as connection:
            return work(connection)
