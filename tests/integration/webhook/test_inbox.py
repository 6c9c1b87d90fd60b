import asyncio
import uuid
from typing import Any

import pytest
from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import make_url

from services.runtime.database import Database
from services.runtime.errors import ServiceError, Unavailable
from services.webhook.events import EventFilter, Events
from services.webhook.inbox import Settlement, _command, _write
from services.webhook.tables import State, metadata
from tests.integration.webhook.harness import (
    eventually,
    locked,
    opened,
    opened_inbox,
    received,
    rows,
)
from tests.postgresql import PostgresqlServer

GENERATION = str(uuid.uuid4())


async def test_an_event_is_kept_as_it_came(url: str) -> None:
    async with opened(url) as database, opened_inbox(database) as box:
        body = bytes(range(256))

        is_new = await box.store(received("msg_1", body, GENERATION, 3))

        (row,) = await rows(database)
        assert is_new
        assert (row["webhook_id"], row["body"], row["state"]) == ("msg_1", body, State.PENDING)
        assert (row["generation_id"], row["attempt"], row["query_verdict"]) == (
            GENERATION,
            3,
            "good",
        )
        assert row["headers"] == '[["webhook-id", "msg_1"], ["user-agent", "test"]]'
        assert row["received_at"] <= row["stored_at"] == row["due_at"]
        assert row["delivered_at"] is None


async def test_the_same_event_fifty_times_at_once_is_one_row(url: str) -> None:
    async with opened(url) as database, opened_inbox(database) as box:
        answers = await asyncio.gather(*(box.store(received("msg_1")) for _ in range(50)))

        assert sorted(answers) == [False] * 49 + [True]
        assert len(await rows(database)) == 1


async def test_body_generation_and_attempt_are_part_of_the_key(url: str) -> None:
    async with opened(url) as database, opened_inbox(database) as box:
        # The broken query comes first, as in a replay; it must not hide the genuine event.
        events = [
            received("msg_1"),
            received("msg_1", b"{}", GENERATION, 1),
            received("msg_1", b"{}", GENERATION, 2),
            received("msg_1", b"[]", GENERATION, 1),
            received("msg_2", b"{}", GENERATION, 1),
        ]

        for event in events:
            assert await box.store(event)
            assert not await box.store(event)

        assert [row["sequence"] for row in await rows(database)] == sorted(
            row["sequence"] for row in await rows(database)
        )
        assert len(await rows(database)) == 5


async def test_one_bad_event_does_not_fail_its_neighbours(url: str) -> None:
    async with opened(url) as database, opened_inbox(database) as box:
        events = [received() for _ in range(20)]
        events[7] = received("x" * 257)

        answers = await asyncio.gather(
            *(box.store(event) for event in events), return_exceptions=True
        )

        assert isinstance(answers.pop(7), ServiceError)
        assert answers == [True] * 19
        assert len(await rows(database)) == 19


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_storing_that_takes_too_long_fails_and_is_found_by_the_repetition(
    url: str,
) -> None:
    async with (
        opened(url) as database,
        opened_inbox(database, store_limit_s=0.2) as box,
    ):
        with locked(url):
            with pytest.raises(Unavailable):
                await box.store(received("msg_1"))
            with pytest.raises(Unavailable):
                await box.probe()
            assert await rows(database) == []

        await eventually(lambda: _is_stored_before(box))
        await box.probe()


async def _is_stored_before(box: Any) -> bool:
    try:
        return not await box.store(received("msg_1"))
    except Unavailable:
        return False


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_nothing_is_acknowledged_that_a_dying_database_took(
    url: str, postgresql: PostgresqlServer
) -> None:
    name = str(make_url(url).database)
    async with opened(url) as database, opened_inbox(database) as box:
        acknowledged: list[str] = []
        refused = 0
        stop = asyncio.Event()

        async def sender() -> None:
            nonlocal refused
            while not stop.is_set():
                event = received()
                try:
                    await box.store(event)
                    acknowledged.append(event.webhook_id)
                except ServiceError:
                    refused += 1

        senders = [asyncio.create_task(sender()) for _ in range(8)]
        for _ in range(3):
            before = len(acknowledged)
            await eventually(lambda before=before: len(acknowledged) > before + 100)
            await asyncio.to_thread(
                postgresql.execute,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()",
                name,
            )
        before = len(acknowledged)
        await eventually(lambda: len(acknowledged) > before + 100)
        stop.set()
        await asyncio.gather(*senders)

        stored = {row["webhook_id"] for row in await rows(database)}
        assert len(acknowledged) > 400
        assert set(acknowledged) <= stored


async def test_a_claimed_event_is_nobody_elses_until_its_lease_ends(
    url: str,
) -> None:
    async with opened(url) as database, opened_inbox(database) as box:
        for _ in range(5):
            await box.store(received())

        first, second = await asyncio.gather(box.claim(3, 30), box.claim(3, 0.2))
        assert sorted([len(first), len(second)]) == [2, 3]
        assert not {event.sequence for event in first} & {event.sequence for event in second}
        assert await box.claim(3, 30) == []

        again = await eventually(lambda: box.claim(5, 30))
        assert {event.sequence for event in again} <= {event.sequence for event in second}
        assert [event.tries for event in again] == [2] * len(again)


async def test_a_replay_of_an_event_in_flight_is_not_settled_by_the_older_delivery(
    url: str,
) -> None:
    async with opened(url) as database, opened_inbox(database) as box:
        await box.store(received())
        (older,) = await box.claim(1, 30)
        await Events(database, lambda: None).replay(
            EventFilter(sequences=(older.sequence,)), dry_run=False
        )

        await box.settle(Settlement(older.sequence, older.lease_ends_at, State.DELIVERED))

        (row,) = await rows(database)
        assert (row["state"], row["delivered_at"]) == (State.PENDING, None)
        (newer,) = await box.claim(1, 30)
        await box.settle(Settlement(newer.sequence, newer.lease_ends_at, State.DELIVERED))
        (row,) = await rows(database)
        assert (row["state"], row["tries"]) == (State.DELIVERED, 2)


async def test_a_settlement_counts_unless_the_event_was_claimed_anew(
    url: str,
) -> None:
    async with opened(url) as database, opened_inbox(database) as box:
        await box.store(received())
        (slow,) = await box.claim(1, 0)
        (event,) = await box.claim(1, 30)

        await box.settle(Settlement(slow.sequence, slow.lease_ends_at, State.DEAD))
        (row,) = await rows(database)
        assert (row["state"], row["tries"]) == (State.PENDING, 2)

        refused = Settlement(
            event.sequence, event.lease_ends_at, State.PENDING, 0.0, refused=True, error="X" * 999
        )
        await box.settle(refused)
        (row,) = await rows(database)
        assert (row["state"], row["refusals"], row["last_error"]) == ("PENDING", 1, "X" * 300)

        (event,) = await box.claim(1, 30)
        done = Settlement(
            event.sequence, event.lease_ends_at, State.DELIVERED, disposition="APPLIED"
        )
        await box.settle(done)
        await box.settle(Settlement(event.sequence, event.lease_ends_at, State.DEAD))
        (row,) = await rows(database)
        assert (row["state"], row["disposition"], row["last_error"]) == ("DELIVERED", "APPLIED", "")
        assert row["delivered_at"] is not None
        assert await box.claim(1, 30) == []


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_rows_are_written_in_the_order_of_their_keys_so_that_replicas_never_deadlock(
    url: str,
) -> None:
    async with opened(url) as database, opened(url) as other, opened_inbox(database) as box:
        async with other.write() as connection:
            await connection.run_sync(_write, [_command(received("m"))])
            storing = asyncio.gather(*(box.store(received(name)) for name in ("z", "m", "a")))
            await eventually(lambda: _somebody_waits(database))
            # Had "z" been written before "m", the two would wait for each other now.
            await connection.execute(text("SET LOCAL lock_timeout = '100ms'"))
            await connection.run_sync(_write, [_command(received("z"))])

        assert await storing == [False, False, True]


async def _somebody_waits(database: Database) -> bool:
    async with database.read() as connection:
        waiting = await connection.execute(
            text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
        )
        return bool(waiting.scalar_one())


async def test_the_migrations_make_what_the_tables_declare(
    url: str, backend: str, tmp_path: Any, request: pytest.FixtureRequest
) -> None:
    if backend == "sqlite":
        declared_url = f"sqlite:///{tmp_path}/declared.sqlite3"
    else:
        server: PostgresqlServer = request.getfixturevalue("postgresql")
        declared_url = server.url(server.create_database())
    async with opened(url) as migrated, opened(declared_url) as declared:
        async with declared.write() as connection:
            await connection.run_sync(metadata.create_all)
            wanted = await connection.run_sync(_shape)
        async with migrated.read() as connection:
            assert await connection.run_sync(_shape) == wanted


def _shape(connection: Connection) -> dict[str, Any]:
    found = inspect(connection)
    return {
        "columns": {
            column["name"]: (
                repr(column["type"]),
                column["nullable"],
                column.get("comment"),
                bool(column.get("identity")),
            )
            for column in found.get_columns("inbox")
        },
        "key": found.get_pk_constraint("inbox"),
        "checks": {
            check["name"]: check["sqltext"] for check in found.get_check_constraints("inbox")
        },
        "indexes": {
            index["name"]: (
                index["column_names"],
                bool(index["unique"]),
                {key: str(value) for key, value in index.get("dialect_options", {}).items()},
            )
            for index in found.get_indexes("inbox")
        },
        "options": found.get_table_options("inbox"),
    }
