"""Writes many commands in one database transaction: whatever queued while the last one ran.

There is no timer: a lone command is written at once, and under load the batches grow by themselves.
Each caller gets its own answer after the SQL commit. N commands cost one fsync.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.runtime.database import (
    Database,
    Trouble,
    trouble_of,
    wait_briefly_for_locks,
    wait_for_standbys,
)
from services.runtime.errors import (
    Conflict,
    Overloaded,
    ServiceError,
    ServiceFailed,
    Unavailable,
)
from services.runtime.telemetry import get_logger

__all__ = ["GroupCommit"]

CONFLICT_TRIES = 5
CONFLICTS_S = 1.5
"""No try begins later than this after the first: one lock that is not given is asked for twice."""
CONFLICT_DELAY_S = 0.02
LOST_TRIES = 2

logger = get_logger(__name__)

_Command = TypeVar("_Command")
_Answer = TypeVar("_Answer")


class GroupCommit(Generic[_Command, _Answer]):
    """The one writer of a process: `submit` commands while `run` writes them.

    `apply` gets a connection in a database transaction and the commands of a batch in order of
    arrival, and returns for each its answer, or the exception that this command alone shall raise.
    With `at_once` it awaits nothing, and is run where that is cheapest: on SQLite in a thread, so
    it may touch nothing that belongs to the event loop.
    If `apply` itself raises, nothing of the batch is written: after a conflict or a lost connection
    the whole batch is tried again; after anything else, and after conflicts that do not end, each
    command is tried once by itself, so that the culprit fails alone. All this is safe because every
    command can be repeated.

    `weigh` says how heavy a command is, in bytes or whatever the two limits of weight are meant in;
    a command that is heavier than a batch may be is written by itself. `wrote` is told of every
    batch that is durable how many commands it had, before their callers are.
    """

    def __init__(
        self,
        database: Database,
        apply: Callable[
            [AsyncConnection, Sequence[_Command]], Awaitable[Sequence[_Answer | Exception]]
        ]
        | None = None,
        *,
        at_once: Callable[[Connection, Sequence[_Command]], Sequence[_Answer | Exception]]
        | None = None,
        batch_max: int = 256,
        queue_max: int = 10_000,
        weigh: Callable[[_Command], int] = lambda _: 0,
        batch_weight_max: int = 0,
        queue_weight_max: int = 0,
        wrote: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._database = database
        if (apply is None) == (at_once is None):
            raise ValueError("batches are applied in one way")
        self._apply = apply
        self._at_once = at_once
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._weigh = weigh
        self._batch_weight_max = batch_weight_max
        self._queue_weight_max = queue_weight_max
        self._wrote = wrote
        self._queue: deque[tuple[_Command, asyncio.Future[_Answer], int]] = deque()
        self._queue_weight = 0
        self._wake = asyncio.Event()
        self._closing = False

    async def submit(self, command: _Command, wait_s: float | None = None) -> _Answer:
        """Returns the answer to `command` once it is durable, after `wait_s` at most.

        Raises Overloaded when too many wait, Conflict, Unavailable when the database is away or too
        slow, and ServiceFailed after a defect. A caller that leaves before its batch began takes
        its command with it; later it changes nothing.
        """
        if self._closing:
            raise Unavailable("DATABASE_UNAVAILABLE", "The service is stopping; repeat the call.")
        weight = self._weigh(command)
        is_full = (
            len(self._queue) >= self._queue_max
            or self._queue_weight + weight > self._queue_weight_max
        )
        if is_full or (wait_s is not None and self._is_behind()):
            raise Overloaded("SERVICE_OVERLOADED", "Too many writes wait.")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Answer] = loop.create_future()
        self._queue.append((command, answer, weight))
        self._queue_weight += weight
        self._wake.set()
        if wait_s is None:
            return await answer
        # Cheaper than a timeout around it, of which there would be one for each command.
        timer = loop.call_later(wait_s, _give_up, answer)
        try:
            return await answer
        finally:
            timer.cancel()

    async def run(self) -> None:
        """Writes until `close` was called and nothing waits any more."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while batch := self._next_batch():
                try:
                    await self._write(batch)
                except Unavailable as error:
                    # Whatever waits behind it would wait as long for the same.
                    waiting = [(command, answer) for command, answer, _ in self._queue]
                    _settle_all([*batch, *waiting], error)
                    self._queue.clear()
                    self._queue_weight = 0
            if self._closing:
                return

    def close(self) -> None:
        """Refuses new commands; `run` returns when those that wait are written."""
        self._closing = True
        self._wake.set()

    def _is_behind(self) -> bool:
        """Returns whether the first in the queue has waited in vain, as who comes now would."""
        if not self._queue:
            return False
        _, answer, _ = self._queue[0]
        return answer.done() and not answer.cancelled()

    def _next_batch(self) -> list[tuple[_Command, asyncio.Future[_Answer]]]:
        batch: list[tuple[_Command, asyncio.Future[_Answer]]] = []
        batch_weight = 0
        while self._queue and len(batch) < self._batch_max:
            command, answer, weight = self._queue[0]
            if batch and batch_weight + weight > self._batch_weight_max:
                break
            self._queue.popleft()
            self._queue_weight -= weight
            if not answer.done():  # Else its caller left.
                batch.append((command, answer))
                batch_weight += weight
        return batch

    async def _write(
        self, batch: Sequence[tuple[_Command, asyncio.Future[_Answer]]], *, apart: bool = False
    ) -> None:
        """Writes a batch and gives each caller its answer or its error; raises Unavailable."""
        try:
            answers = await self._transact([command for command, _ in batch], apart=apart)
        except Unavailable:
            raise
        except Exception as error:
            all_are_locked = isinstance(error, Conflict) and not self._database.has_row_locks
            if len(batch) > 1 and not all_are_locked:
                # The driver does not say whose data it refused, or whose lock it was not given, so
                # each is tried by itself: only the guilty command may fail.
                for item in batch:
                    await self._write([item], apart=True)
            elif isinstance(error, ServiceError):
                _settle_all(batch, error)
            else:
                name = type(batch[0][0]).__name__
                logger.exception("command failed", command=name, exc_info=error)
                _settle_all(batch, ServiceFailed())
        else:
            self._wrote(len(batch))
            for (_, answer), result in zip(batch, answers, strict=True):
                _settle(answer, result)

    async def _transact(
        self, commands: Sequence[_Command], *, apart: bool
    ) -> Sequence[_Answer | Exception]:
        """Runs `apply` in a database transaction, again where that can help.

        A command that is tried `apart` has waited for locks before, and holds up many others.
        """
        until = time.monotonic() + (0 if apart else CONFLICTS_S)
        conflicts = losses = 0
        while True:
            try:
                return await self._run_apply(commands, apart=apart)
            except (SQLAlchemyError, OSError) as error:
                match trouble_of(error):
                    case Trouble.CONFLICT:
                        conflicts += 1
                        if conflicts == CONFLICT_TRIES or time.monotonic() >= until:
                            raise Conflict(
                                "TRANSACTION_CONFLICT",
                                "Others wrote the same rows; repeat the call.",
                            ) from error
                        await asyncio.sleep(random.uniform(0, CONFLICT_DELAY_S * 2**conflicts))  # noqa: S311  Jitter.
                    case Trouble.LOST:
                        losses += 1
                        logger.warning("database lost", commands=len(commands), error=repr(error))
                        # One that did not answer in time would hardly answer now.
                        if losses == LOST_TRIES or isinstance(error, TimeoutError):
                            raise Unavailable(
                                "DATABASE_UNAVAILABLE",
                                "The database cannot be reached; repeat the call.",
                            ) from error
                    case Trouble.OTHER:
                        raise

    async def _run_apply(
        self, commands: Sequence[_Command], *, apart: bool
    ) -> Sequence[_Answer | Exception]:
        at_once = self._at_once
        if at_once is not None:

            def work(connection: Connection) -> Sequence[_Answer | Exception]:
                if apart:
                    wait_briefly_for_locks(connection)
                answers = at_once(connection, commands)
                wait_for_standbys(connection)
                return answers

            return await self._database.transact(work)
        assert self._apply is not None
        async with self._database.writer.begin() as connection:
            if apart:
                await connection.run_sync(wait_briefly_for_locks)
            answers = await self._apply(connection, commands)
            await connection.run_sync(wait_for_standbys)
            return answers


def _settle_all(
    batch: Iterable[tuple[object, asyncio.Future[_Answer]]], error: ServiceError
) -> None:
    for _, answer in batch:
        _settle(answer, error)


def _give_up(answer: asyncio.Future[_Answer]) -> None:
    if not answer.done():
        answer.set_exception(Unavailable("DATABASE_UNAVAILABLE", "The database takes too long."))


def _settle(answer: asyncio.Future[_Answer], result: _Answer | Exception) -> None:
    if answer.done():  # Its caller left while the batch was written.
        return
    if isinstance(result, Exception):
        answer.set_exception(result)
    else:
        answer.set_result(result)
