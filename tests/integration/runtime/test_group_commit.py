"""Batches: whatever queued meanwhile is written together, and each caller gets its own answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.runtime.database import Database, open_database
from services.runtime.errors import (
    Conflict,
    NotFound,
    Overloaded,
    ServiceFailed,
    Unavailable,
)
from services.runtime.group_commit import GroupCommit
from tests.conftest import NewDatabase
from tests.postgresql import PostgresqlServer


class Numbers:
    """Writes numbers into a table, which refuses negative ones."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.troubles: list[Exception] = []
        """Raised by the next batches, one each, after they have written."""
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def apply(
        self, connection: AsyncConnection, numbers: Sequence[int]
    ) -> list[str | Exception]:
        self.batches.append(list(numbers))
        self.entered.set()
        await self.go_on.wait()
        for number in numbers:
            await connection.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": number})
        if self.troubles:
            raise self.troubles.pop(0)
        return [
            NotFound("UNLUCKY", "No.") if number == 13 else f"wrote {number}" for number in numbers
        ]


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[Database]:
    opened = open_database(new_database("credits"))
    async with opened.writer.begin() as connection:
        await connection.execute(text("CREATE TABLE numbers (n integer CHECK (n >= 0))"))
    yield opened
    await opened.close()


@pytest.fixture
def numbers() -> Numbers:
    return Numbers()


@contextlib.asynccontextmanager
async def running(
    database: Database,
    numbers: Numbers,
    *,
    batch_max: int = 256,
    queue_max: int = 100,
    **weights: Any,
) -> AsyncIterator[GroupCommit[int, str]]:
    writer = GroupCommit[int, str](
        database, numbers.apply, batch_max=batch_max, queue_max=queue_max, **weights
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(writer.run())
        try:
            yield writer
        finally:
            writer.close()


async def written(database: Database) -> list[int]:
    async with database.read() as connection:
        return list((await connection.execute(text("SELECT n FROM numbers ORDER BY n"))).scalars())


def serialization_failure() -> Exception:
    class Failure(Exception):
        """Stands for a driver's error."""

        sqlstate = "40001"

    return DBAPIError("COMMIT", {}, Failure())


async def test_a_lone_command_is_written_at_once_and_those_that_wait_together(
    database: Database, numbers: Numbers
) -> None:
    async with running(database, numbers, batch_max=4) as writer:
        numbers.go_on.clear()
        first = asyncio.create_task(writer.submit(1))
        await numbers.entered.wait()
        others = [asyncio.create_task(writer.submit(n)) for n in range(2, 8)]
        await asyncio.sleep(0)
        numbers.go_on.set()
        answers = await asyncio.gather(first, *others)

    assert answers == [f"wrote {n}" for n in range(1, 8)]
    assert numbers.batches == [[1], [2, 3, 4, 5], [6, 7]]
    assert await written(database) == [1, 2, 3, 4, 5, 6, 7]


async def test_an_error_that_is_an_answer_is_raised_to_its_caller_alone(
    database: Database, numbers: Numbers
) -> None:
    async with running(database, numbers) as writer:
        lucky, unlucky = await asyncio.gather(
            writer.submit(7), writer.submit(13), return_exceptions=True
        )

    assert lucky == "wrote 7"
    assert isinstance(unlucky, NotFound)
    assert numbers.batches == [[7, 13]]


async def test_a_violated_constraint_fails_its_own_command_alone(
    database: Database, numbers: Numbers
) -> None:
    async with running(database, numbers) as writer:
        answers = await asyncio.gather(
            *(writer.submit(n) for n in (1, -1, 2)), return_exceptions=True
        )

    first, culprit, last = answers
    assert (first, last) == ("wrote 1", "wrote 2")
    assert isinstance(culprit, ServiceFailed)
    assert numbers.batches == [[1, -1, 2], [1], [-1], [2]]
    assert await written(database) == [1, 2]


async def test_a_conflict_is_tried_again_as_a_whole(database: Database, numbers: Numbers) -> None:
    numbers.troubles = [serialization_failure(), serialization_failure()]
    async with running(database, numbers) as writer:
        answers = await asyncio.gather(*(writer.submit(n) for n in (1, 2)))

    assert answers == ["wrote 1", "wrote 2"]
    assert numbers.batches == [[1, 2]] * 3
    assert await written(database) == [1, 2]


async def test_a_conflict_that_does_not_end_is_told_and_nothing_is_written(
    database: Database, numbers: Numbers
) -> None:
    numbers.troubles = [serialization_failure() for _ in range(7)]
    async with running(database, numbers) as writer:
        answers = await asyncio.gather(writer.submit(1), writer.submit(2), return_exceptions=True)
        numbers.troubles.clear()
        later = await writer.submit(3)

    assert [type(answer) for answer in answers] == [Conflict, Conflict]
    assert later == "wrote 3"
    assert await written(database) == [3]


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_a_conflict_that_does_not_end_is_tried_apart(
    database: Database, numbers: Numbers
) -> None:
    """A row that somebody keeps locked must not stop those who want others."""
    numbers.troubles = [serialization_failure() for _ in range(6)]
    async with running(database, numbers) as writer:
        answers = await asyncio.gather(
            *(writer.submit(n) for n in (1, 2, 3)), return_exceptions=True
        )

    culprit, *others = answers
    assert isinstance(culprit, Conflict)
    assert others == ["wrote 2", "wrote 3"]
    assert numbers.batches == [[1, 2, 3]] * 5 + [[1], [2], [3]]


async def test_a_database_that_does_not_answer_in_time_is_asked_once_for_all_who_wait(
    database: Database, numbers: Numbers
) -> None:
    numbers.troubles = [TimeoutError()]
    async with running(database, numbers, batch_max=2) as writer:
        answers = await asyncio.gather(
            *(writer.submit(n) for n in range(5)), return_exceptions=True
        )
        later = await writer.submit(5)

    assert [type(answer) for answer in answers] == [Unavailable] * 5
    assert later == "wrote 5"
    assert numbers.batches == [[0, 1], [5]]


async def test_a_database_that_goes_away_while_commands_are_tried_apart_is_told_at_once(
    database: Database, numbers: Numbers
) -> None:
    numbers.troubles = [ValueError("data"), TimeoutError()]
    async with running(database, numbers) as writer:
        answers = await asyncio.gather(
            *(writer.submit(n) for n in (1, 2, 3)), return_exceptions=True
        )

    assert [type(answer) for answer in answers] == [Unavailable] * 3
    assert numbers.batches == [[1, 2, 3], [1]]


async def test_a_lost_connection_is_replaced_once_and_then_told_to_all_at_once(
    database: Database, numbers: Numbers
) -> None:
    numbers.troubles = [ConnectionResetError()]
    async with running(database, numbers) as writer:
        recovered = await writer.submit(1)
        numbers.troubles = [ConnectionResetError(), ConnectionResetError()]
        answers = await asyncio.gather(
            *(writer.submit(n) for n in (2, 3, 4)), return_exceptions=True
        )

    assert recovered == "wrote 1"
    assert [type(answer) for answer in answers] == [Unavailable] * 3
    # A database that is away costs one wait, not one a command.
    assert numbers.batches == [[1], [1], [2, 3, 4], [2, 3, 4]]
    assert await written(database) == [1]


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_a_connection_that_the_server_ends_costs_no_command(
    database: Database, numbers: Numbers, postgresql: PostgresqlServer
) -> None:
    async with running(database, numbers) as writer:
        await writer.submit(1)
        numbers.entered.clear()
        numbers.go_on.clear()
        caught = asyncio.create_task(writer.submit(2))
        await numbers.entered.wait()
        postgresql.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'reelworks'"
        )
        numbers.go_on.set()
        answer = await caught

    assert answer == "wrote 2"
    assert await written(database) == [1, 2]


async def test_a_full_queue_refuses_at_once(database: Database, numbers: Numbers) -> None:
    async with running(database, numbers, queue_max=2) as writer:
        numbers.go_on.clear()
        tasks = [asyncio.create_task(writer.submit(1))]
        await numbers.entered.wait()
        tasks += [asyncio.create_task(writer.submit(n)) for n in (2, 3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await writer.submit(4)
        numbers.go_on.set()
        await asyncio.gather(*tasks)

    assert await written(database) == [1, 2, 3]


async def test_batches_and_the_queue_are_bounded_by_weight_too(
    database: Database, numbers: Numbers
) -> None:
    weights: dict[str, Any] = {
        "weigh": lambda number: number,
        "batch_weight_max": 10,
        "queue_weight_max": 40,
    }
    async with running(database, numbers, **weights) as writer:
        numbers.go_on.clear()
        tasks = [asyncio.create_task(writer.submit(1))]
        await numbers.entered.wait()
        tasks += [asyncio.create_task(writer.submit(n)) for n in (6, 4, 5, 20, 2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await writer.submit(4)
        numbers.go_on.set()
        await asyncio.gather(*tasks)

    # What alone is too heavy for a batch is one by itself.
    assert numbers.batches == [[1], [6, 4], [5], [20], [2]]


async def test_a_caller_waits_no_longer_than_it_says_and_the_next_ones_not_at_all(
    database: Database, numbers: Numbers
) -> None:
    async with running(database, numbers) as writer:
        numbers.go_on.clear()
        writing = asyncio.create_task(writer.submit(1))
        await numbers.entered.wait()
        with pytest.raises(Unavailable):
            await writer.submit(2, wait_s=0.01)
        with pytest.raises(Overloaded):
            await writer.submit(3, wait_s=100)
        patient = asyncio.create_task(writer.submit(4))
        await asyncio.sleep(0)
        numbers.go_on.set()
        await asyncio.gather(writing, patient)

    assert await written(database) == [1, 4]


async def test_a_caller_that_leaves_takes_its_command_along_only_before_its_batch(
    database: Database, numbers: Numbers
) -> None:
    async with running(database, numbers) as writer:
        numbers.go_on.clear()
        writing = asyncio.create_task(writer.submit(1))
        await numbers.entered.wait()
        waiting = asyncio.create_task(writer.submit(2))
        await asyncio.sleep(0)
        writing.cancel()
        waiting.cancel()
        await asyncio.wait([writing, waiting])
        numbers.go_on.set()
        await writer.submit(3)

    assert await written(database) == [1, 3]


async def test_closing_writes_what_waits_and_refuses_what_comes(
    database: Database, numbers: Numbers
) -> None:
    async with running(database, numbers) as writer:
        numbers.go_on.clear()
        first = asyncio.create_task(writer.submit(1))
        await numbers.entered.wait()
        second = asyncio.create_task(writer.submit(2))
        await asyncio.sleep(0)
        writer.close()
        with pytest.raises(Unavailable):
            await writer.submit(3)
        numbers.go_on.set()

    assert [await first, await second] == ["wrote 1", "wrote 2"]
    assert await written(database) == [1, 2]


def write_at_once(connection: Connection, numbers: Sequence[int]) -> list[str | Exception]:
    for number in numbers:
        connection.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": number})
    return [NotFound("UNLUCKY", "No.") if n == 13 else f"wrote {n}" for n in numbers]


@contextlib.asynccontextmanager
async def writing_at_once(
    database: Database,
    write: Callable[[Connection, Sequence[int]], list[str | Exception]] = write_at_once,
) -> AsyncIterator[GroupCommit[int, str]]:
    writer = GroupCommit[int, str](database, at_once=write)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(writer.run())
        try:
            yield writer
        finally:
            writer.close()


async def test_work_that_awaits_nothing_fails_and_succeeds_command_by_command_too(
    database: Database,
) -> None:
    async with writing_at_once(database) as writer:
        answers = await asyncio.gather(
            *(writer.submit(n) for n in (1, -1, 13, 2)), return_exceptions=True
        )

    assert answers[0] == "wrote 1"
    assert isinstance(answers[1], ServiceFailed)
    assert isinstance(answers[2], NotFound)
    assert answers[3] == "wrote 2"
    assert await written(database) == [1, 2, 13]


async def test_work_that_awaits_nothing_is_tried_again_after_a_conflict(
    database: Database,
) -> None:
    troubles = [serialization_failure(), serialization_failure()]

    def write(connection: Connection, numbers: Sequence[int]) -> list[str | Exception]:
        answers = write_at_once(connection, numbers)
        if troubles:
            raise troubles.pop()
        return answers

    async with writing_at_once(database, write) as writer:
        assert await writer.submit(7) == "wrote 7"

    assert troubles == []
    assert await written(database) == [7]


async def test_others_that_write_wait_for_their_turn_and_lose_nothing(database: Database) -> None:
    async def write_beside(number: int) -> None:
        async with database.write() as connection:
            await connection.execute(text("INSERT INTO numbers VALUES (:n)"), {"n": number})

    async with writing_at_once(database) as writer:
        await asyncio.gather(
            *(writer.submit(n) for n in range(0, 100, 2)),
            *(write_beside(n) for n in range(1, 100, 2)),
        )

    assert await written(database) == list(range(100))


def test_a_batch_is_applied_in_one_way() -> None:
    database = open_database("postgresql://localhost/nowhere")

    with pytest.raises(ValueError, match="in one way"):
        GroupCommit[int, str](database)
