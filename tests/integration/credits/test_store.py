"""The store answers as the ledger decides, however commands are batched and whoever else writes."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, event

from services.credits import store as store_module
from services.credits.commands import (
    AddCredits,
    Command,
    Commit,
    Expire,
    OpenAccount,
    Refund,
    Reimburse,
    Reserve,
)
from services.credits.ledger import Books, Moved, Outcome, Refusal, Refused, decide
from services.credits.reads import LedgerReads
from services.credits.records import Account, TransactionType
from services.credits.store import Answer, CreditsStore, Done
from services.runtime.database import Database, open_database
from services.runtime.errors import ServiceFailed
from tests.conftest import NewDatabase
from tests.integration.credits.stores import AT_ONCE, DAY, running_store
from tests.ledger_verification import problems

Result = Answer | BaseException


@pytest.fixture
async def database(new_database: NewDatabase) -> AsyncIterator[Database]:
    opened = open_database(new_database("credits"))
    yield opened
    try:
        assert await problems(opened) == []
    finally:
        await opened.close()


@pytest.fixture
async def two_databases(new_database: NewDatabase, backend: str) -> AsyncIterator[list[Database]]:
    """Two processes' worth of connections; a SQLite file belongs to one process."""
    url = new_database("credits")
    opened = [open_database(url) for _ in range(1 if backend == "sqlite" else 2)]
    yield opened
    try:
        assert await problems(opened[0]) == []
    finally:
        for one in opened:
            await one.close()


def random_commands(seed: int, count: int, users: int = 3) -> list[Command]:
    """Commands that often meet: few users, few keys, amounts that fit and that do not."""
    source = random.Random(seed)  # noqa: S311  Repeatable, as no secret may be.

    def one() -> Command:
        user = f"user{source.randrange(users)}"
        reservation = f"r{source.randrange(8)}"
        request = f"q{source.randrange(4)}"
        match source.randrange(12):
            case 0:
                return OpenAccount(user, 100)
            case 1:
                return AddCredits(user, request, TransactionType.PURCHASE, source.choice([50, 51]))
            case 2:
                return AddCredits(user, request, TransactionType.ADJUSTMENT, -30)
            case 3 | 4 | 5 | 6:
                ttl = source.choice([AT_ONCE, DAY, DAY])
                return Reserve(user, reservation, source.choice([20, 20, 20, 900]), ttl)
            case 7 | 8:
                return Commit(user, reservation, source.choice([None, 15, 20, 21]))
            case 9:
                return Refund(user, reservation)
            case 10:
                return Expire(user, reservation)
            case _:
                return Reimburse(user, reservation, request, source.choice([5, 10]))

    return [one() for _ in range(count)]


async def submit_all(store: CreditsStore, commands: Sequence[Command]) -> list[Result]:
    """Submits commands in order, without waiting for one before the next."""
    return list(await asyncio.gather(*(store.submit(c) for c in commands), return_exceptions=True))


def without_times(results: Sequence[Result]) -> list[object]:
    """Returns what does not depend on when a command was written."""

    def stripped(result: Result) -> object:
        if isinstance(result, Refused):
            metadata = {k: v for k, v in result.metadata.items() if k != "expire_time"}
            return result.refusal, metadata
        if isinstance(result, BaseException):
            return type(result)
        account, reservation, transaction = result.account, result.reservation, result.transaction
        never = datetime(2000, 1, 1, tzinfo=UTC)
        return (
            replace(account, created_at=never, updated_at=never),
            reservation
            and replace(
                reservation,
                created_at=never,
                expires_at=never,
                resolved_at=reservation.resolved_at and never,
            ),
            transaction and replace(transaction, created_at=never),
            result.replayed,
        )

    return [stripped(result) for result in results]


async def test_every_split_of_commands_into_batches_gives_the_same_answers(
    new_database: NewDatabase,
) -> None:
    commands = random_commands(seed=1, count=150)
    answers = []
    for batch_max in (1, 4, 33, 256):
        database = open_database(new_database("credits"))
        try:
            async with running_store(database, batch_max) as store:
                answers.append(without_times(await submit_all(store, commands)))
            assert await problems(database) == []
        finally:
            await database.close()

    assert answers[1:] == answers[:1] * 3
    done = sum(isinstance(answer, tuple) and len(answer) == 4 for answer in answers[0])
    assert done > 50


def raising(outcome: Outcome) -> Outcome:
    raise RuntimeError(f"planted beside {outcome}")


def breaking_a_constraint(outcome: Outcome) -> Outcome:
    assert isinstance(outcome, Moved)
    assert outcome.transaction is not None
    return replace(outcome, transaction=replace(outcome.transaction, description="x" * 201))


@pytest.mark.parametrize("planted", [raising, breaking_a_constraint])
@pytest.mark.parametrize("culprit", [Reserve("u", "guilty", 5, DAY), OpenAccount("new", 100)])
async def test_a_defect_fails_its_own_command_and_changes_no_neighbour(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    planted: Callable[[Outcome], Outcome],
    culprit: Command,
) -> None:
    def decide_with_defect(books: Books, command: Command, now: datetime) -> Outcome:
        outcome = decide(books, command, now)
        return planted(outcome) if command == culprit else outcome

    monkeypatch.setattr(store_module, "decide", decide_with_defect)
    before: list[Command] = [OpenAccount("u", 100), Reserve("u", "r1", 10, DAY)]
    after: list[Command] = [Reserve("u", "r2", 20, DAY), Commit("u", "r1", 4), Refund("u", "r9")]

    async with running_store(database) as store:
        results = await submit_all(store, [*before, culprit, *after])
        left_over = await LedgerReads(database).find_account("new")

    assert isinstance(results.pop(2), ServiceFailed)
    moved = [isinstance(result, Done) and not result.replayed for result in results]
    assert moved == [True, True, True, True, False]
    assert isinstance(last := results[3], Done)
    assert (last.account.available, last.account.reserved) == (76, 20)
    assert left_over is None


async def test_a_command_whose_caller_left_before_its_batch_writes_nothing(
    database: Database,
) -> None:
    async with running_store(database) as store:
        await store.submit(OpenAccount("u", 100))
        first = asyncio.create_task(store.submit(Reserve("u", "r1", 10, DAY)))
        left = asyncio.create_task(store.submit(Reserve("u", "r2", 10, DAY)))
        await asyncio.sleep(0)
        left.cancel()
        await first
        found = await LedgerReads(database).find_reservation("u", "r2")

    assert left.cancelled()
    assert found.account is not None
    assert found.reservation is None


def won(command: Command, result: Result) -> tuple[object, ...] | None:
    """Returns the key that a command moved; None if it moved nothing."""
    if not isinstance(result, Done) or result.replayed:
        return None
    match command:
        case OpenAccount():
            return command.user_id, "open"
        case AddCredits() | Reimburse():
            return command.user_id, type(command), command.request_id
        case Reserve():
            return command.user_id, "reserve", command.reservation_id
        case Commit() | Refund() | Expire():
            return command.user_id, "resolve", command.reservation_id


@pytest.mark.parametrize("seed", [11, 12])
async def test_concurrent_writers_neither_fail_nor_move_anything_twice(
    two_databases: list[Database], seed: int
) -> None:
    won_keys: Counter[tuple[object, ...]] = Counter()
    unexpected: list[Result] = []

    async def write(stores: list[CreditsStore], writer: int) -> None:
        for command in random_commands(seed * 100 + writer, count=40):
            store = stores[writer % len(stores)]
            [result] = await submit_all(store, [command])
            if isinstance(result, BaseException):
                unexpected.append(result)
            if key := won(command, result):
                won_keys[key] += 1

    async with contextlib.AsyncExitStack() as stack:
        # Small batches, so that the processes take turns often.
        stores = [
            await stack.enter_async_context(running_store(database, batch_max=5))
            for database in two_databases
        ]
        await asyncio.gather(*(write(stores, writer) for writer in range(16)))

    assert unexpected == []
    assert set(won_keys.values()) == {1}
    assert len(won_keys) > 40


async def test_of_everything_sent_twice_at_once_exactly_one_is_no_replay(
    two_databases: list[Database],
) -> None:
    commands: list[Command] = [
        OpenAccount("u", 100),
        AddCredits("u", "q", TransactionType.PURCHASE, 50),
        Reserve("u", "r1", 20, DAY),
        Reserve("u", "r2", 20, DAY),
        Reserve("u", "r3", 20, AT_ONCE),
        Commit("u", "r1", 15),
        Refund("u", "r2"),
        Expire("u", "r3"),
        Reimburse("u", "r1", "q", 5),
    ]
    async with contextlib.AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(running_store(database)) for database in two_databases
        ]
        for command in commands:
            results = await asyncio.gather(stores[0].submit(command), stores[-1].submit(command))
            replayed = [isinstance(result, Done) and result.replayed for result in results]
            assert sorted(replayed) == [False, True], command
            first, second = (
                (result.account, result.reservation)
                for result in results
                if isinstance(result, Done)
            )
            assert first == second


async def test_a_reservation_raced_by_all_who_may_resolve_it_is_resolved_once(
    two_databases: list[Database],
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(running_store(database)) for database in two_databases
        ]
        await stores[0].submit(OpenAccount("u", 1000))
        ends = Counter[str]()
        for number in range(20):
            name = f"r{number}"
            ttl = DAY if number % 2 else timedelta(milliseconds=3)
            await stores[0].submit(Reserve("u", name, 10, ttl))
            rivals: list[Command] = [Commit("u", name), Refund("u", name), Expire("u", name)]
            random.Random(number).shuffle(rivals)  # noqa: S311  Repeatable.
            results = [
                await result
                for result in [
                    asyncio.ensure_future(stores[index % len(stores)].submit(rival))
                    for index, rival in enumerate(rivals)
                ]
            ]
            moved = [r for r in results if isinstance(r, Done) and not r.replayed]
            found = await LedgerReads(two_databases[0]).find_reservation("u", name)
            assert found.reservation is not None
            assert len(moved) == 1
            ends[found.reservation.state] += 1

    assert set(ends) <= {"COMMITTED", "REFUNDED", "EXPIRED"}
    assert ends["COMMITTED"] > 0
    assert ends["REFUNDED"] > 0


async def test_two_openings_beside_commands_on_the_new_account_lose_nothing(
    two_databases: list[Database],
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(running_store(database)) for database in two_databases
        ]
        for number in range(10):
            user = f"user{number}"
            early, *_ = await asyncio.gather(
                *submits(stores[0], Reserve(user, "early", 1, DAY), OpenAccount(user, 100)),
                *submits(stores[-1], OpenAccount(user, 100), Reserve(user, "late", 1, DAY)),
            )
            account = await LedgerReads(two_databases[0]).find_account(user)

            assert account is not None
            assert account.available + account.reserved == 100
            assert isinstance(early, Done) or early.refusal is Refusal.ACCOUNT_NOT_FOUND


def submits(store: CreditsStore, *commands: Command) -> list["asyncio.Task[Answer]"]:
    return [asyncio.create_task(store.submit(command)) for command in commands]


def lose_answer_to_next_commit(database: Database) -> None:
    """Has the next SQL commit happen, and its answer get lost."""

    def lose(connection: Connection) -> None:
        connection.connection.commit()
        raise ConnectionResetError

    event.listen(database.writer.sync_engine, "commit", lose, once=True)


async def test_who_watches_is_told_of_a_commit_whose_answer_got_lost(database: Database) -> None:
    told: list[Account] = []
    store = CreditsStore(database, moved=told.append)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.run())
        await store.submit(OpenAccount("u", 100))
        lose_answer_to_next_commit(database)
        answer = await store.submit(Reserve("u", "r", 30, DAY))
        store.close()

    assert isinstance(answer, Done)
    # The batch was run again, and met what it had written itself.
    assert answer.replayed
    assert (told[-1].version, told[-1].available, told[-1].reserved) == (2, 70, 30)
