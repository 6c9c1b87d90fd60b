"""What was kept for long enough goes; repetitions stay known, and no id returns."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from services.runtime.database import Database
from services.webhook.events import EventFilter, Events, EventState
from services.webhook.inbox import Inbox
from services.webhook.retention import Retention, Terms, _rules
from services.webhook.tables import State, inbox
from tests.contract.webhook.harness import running_webhooks
from tests.integration.webhook.harness import eventually, opened, opened_inbox, received, rows

USED, UNUSED, ROW = timedelta(hours=72), timedelta(days=90), timedelta(days=27)
SOON = timedelta(minutes=5)


async def aged(
    database: Database, box: Inbox, webhook_id: str, age: timedelta, state: State, used: str = ""
) -> None:
    """Stores an event that came and ended a while ago; `used` is generation's word."""
    assert await box.store(received(webhook_id))
    moment = datetime.now(UTC) - age
    async with database.write() as connection:
        await connection.execute(
            update(inbox)
            .where(inbox.c.webhook_id == webhook_id)
            .values(
                state=state.value,
                disposition=used,
                stored_at=moment,
                delivered_at=moment if state is State.DELIVERED else None,
            )
        )


async def blanked_long_ago(database: Database, age: timedelta) -> None:
    async with database.write() as connection:
        blank = {"body": b"", "headers": "[]", "blanked_at": datetime.now(UTC) - age}
        await connection.execute(update(inbox).values(blank))


def retention(database: Database, **options: Any) -> Retention:
    return Retention(database, Terms(), asyncio.Event(), **options)


@contextlib.asynccontextmanager
async def opened_both(url: str) -> AsyncIterator[tuple[Database, Inbox]]:
    async with opened(url) as database, opened_inbox(database) as box:
        yield database, box


async def test_a_used_event_loses_body_and_headers_after_72_hours_and_is_still_recognized(
    url: str,
) -> None:
    async with opened_both(url) as (database, box):
        for name, disposition in [("a", "APPLIED"), ("d", "DUPLICATE"), ("s", "STALE")]:
            await aged(database, box, name, USED + SOON, State.DELIVERED, disposition)
        await aged(database, box, "young", USED - SOON, State.DELIVERED, "APPLIED")

        assert await retention(database).prune() == {"blanked": 3}

        *blank, young = await rows(database)
        assert [(row["body"], row["headers"]) for row in blank] == [(b"", "[]")] * 3
        assert all(row["blanked_at"] and row["state"] == State.DELIVERED for row in blank)
        assert (young["body"], young["blanked_at"]) == (b"{}", None)
        assert [await box.store(received(name)) for name in "ads"] == [False] * 3
        events = Events(database, lambda: None)
        replayed = await events.replay(EventFilter(webhook_ids=("a", "young")), dry_run=True)
        assert (replayed.count, replayed.gone_count) == (1, 1)


async def test_what_nobody_used_stays_whole_for_90_days_and_is_then_given_up(url: str) -> None:
    async with opened_both(url) as (database, box):
        for name, age in [("old", UNUSED + SOON), ("young", UNUSED - SOON)]:
            await aged(database, box, f"{name}-dead", age, State.DEAD, "UNREADABLE")
            await aged(database, box, f"{name}-refused", age, State.DEAD)
            await aged(database, box, f"{name}-unmatched", age, State.DELIVERED, "UNMATCHED")
            await aged(database, box, f"{name}-orphan", age, State.DELIVERED, "ORPHAN")

        assert await retention(database).prune() == {"given_up": 4}

        found = await rows(database)
        assert all(row["body"] == b"" and row["headers"] == "[]" for row in found[:4])
        assert {row["drop_reason"] for row in found[:4]} == {"kept for 90 days"}
        assert all(row["body"] == b"{}" and row["dropped_at"] is None for row in found[4:])
        events = Events(database, lambda: None)
        assert (await events.backlog()).dead == 2
        dropped = await events.page(EventFilter(state=EventState.DROPPED), 9)
        assert {event.webhook_id.split("-")[0] for event in dropped} == {"old"}


async def test_what_generation_has_not_recorded_stays_whole_for_ever(url: str) -> None:
    async with opened_both(url) as (database, box):
        await aged(database, box, "pending", timedelta(days=1_000), State.PENDING)
        await aged(database, box, "replayed", timedelta(days=1_000), State.DEAD)
        chosen = EventFilter(webhook_ids=("replayed",))
        await Events(database, lambda: None).replay(chosen, dry_run=False)

        assert await retention(database).prune() == {}

        assert [row["body"] for row in await rows(database)] == [b"{}"] * 2


async def test_a_row_without_body_goes_27_days_later_and_its_number_never_returns(
    url: str,
) -> None:
    async with opened_both(url) as (database, box):
        for name in "abc":
            await aged(database, box, name, UNUSED, State.DELIVERED, "APPLIED")
        numbers = [row["sequence"] for row in await rows(database)]

        await blanked_long_ago(database, ROW - SOON)
        assert await retention(database).prune() == {}
        await blanked_long_ago(database, ROW + SOON)
        assert await retention(database).prune() == {"deleted": 2}

        assert [row["sequence"] for row in await rows(database)] == numbers[-1:]
        assert await box.store(received("a"))
        assert (await rows(database))[-1]["sequence"] > numbers[-1]


async def test_what_an_operator_dropped_is_recognized_for_27_days(url: str) -> None:
    async with opened_both(url) as (database, box):
        await aged(database, box, "dropped", UNUSED + SOON, State.DEAD)
        (row,) = await rows(database)
        await Events(database, lambda: None).drop([row["sequence"]], "a test")
        await box.store(received("newest"))

        assert await retention(database).prune() == {}
        assert not await box.store(received("dropped"))

        assert (await rows(database))[0]["drop_reason"] == "a test"


async def test_replicas_prune_in_small_batches_and_no_row_twice(url: str) -> None:
    async with opened_both(url) as (database, box):
        await asyncio.gather(*(box.store(received()) for _ in range(57)))
        async with database.write() as connection:
            old = datetime.now(UTC) - USED - SOON
            ended = {"state": "DELIVERED", "disposition": "APPLIED", "delivered_at": old}
            await connection.execute(update(inbox).values(ended))

        pruned = await asyncio.gather(
            *(retention(database, batch_rows=10).prune() for _ in range(2))
        )

        assert sum(one.get("blanked", 0) for one in pruned) == 57
        assert all(row["blanked_at"] for row in await rows(database))


async def test_large_bodies_go_one_by_one(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.webhook.retention.BATCH_BYTES_MAX", 30)
    async with opened_both(url) as (database, box):
        old = datetime.now(UTC) - USED - SOON
        for size in (10, 20, 40, 1):
            await box.store(received(body=b"x" * size))
        async with database.write() as connection:
            ended = {"state": "DELIVERED", "disposition": "APPLIED", "delivered_at": old}
            await connection.execute(update(inbox).values(ended))
        job = retention(database)
        (rule, *_) = job._rules

        batches = [await job._apply(rule) for _ in range(4)]

        assert batches == [2, 1, 1, 0]


async def test_trouble_is_outlived(url: str) -> None:
    async with opened_both(url) as (database, box):
        await aged(database, box, "a", USED + SOON, State.DELIVERED, "APPLIED")
        stopping = asyncio.Event()
        job = Retention(database, Terms(), stopping, interval_s=0.01)
        async with database.write() as connection:
            await connection.execute(text("ALTER TABLE inbox RENAME TO away"))

        with structlog.testing.capture_logs() as lines:
            running = asyncio.create_task(job.run())
            await eventually(lambda: len(lines) >= 2)
        assert {line["event"] for line in lines} == {"not pruned"}
        async with database.write() as connection:
            await connection.execute(text("ALTER TABLE away RENAME TO inbox"))

        async def is_blank() -> bool:
            return (await rows(database))[0]["blanked_at"] is not None

        await eventually(is_blank)
        stopping.set()
        await running


async def test_the_service_prunes_when_it_starts(url: str, tmp_path: Path) -> None:
    async with opened_both(url) as (database, box):
        await aged(database, box, "old", USED + SOON, State.DELIVERED, "APPLIED")
        await aged(database, box, "young", USED - SOON, State.DELIVERED, "APPLIED")

    async with running_webhooks(url, tmp_path) as webhooks:

        async def is_gone() -> bool:
            return bool((await webhooks.listed(webhook_ids=["old"]))[0].body_gone)

        await eventually(is_gone)
        assert not (await webhooks.listed(webhook_ids=["young"]))[0].body_gone


async def test_every_rule_finds_its_rows_by_an_index(url: str) -> None:
    indexes = {"blanked": "delivered_at", "given_up": "stored_at", "deleted": "blanked_at"}
    async with opened(url) as database, database.writer.connect() as connection:
        for rule in _rules(Terms()):
            plan = await _plan(connection, rule.due)
            assert f"ix_inbox_{indexes[rule.name]}" in plan, plan
            assert "Sort" not in plan
            assert "TEMP B-TREE" not in plan


async def _plan(connection: AsyncConnection, statement: Any) -> str:
    """Returns how the database would execute a statement."""
    explain = "EXPLAIN QUERY PLAN"
    if connection.dialect.name == "postgresql":
        explain = "EXPLAIN"
        # Of an empty table it would read all, and sort it.
        for way in ("seqscan", "bitmapscan"):
            await connection.execute(text(f"SET LOCAL enable_{way} = off"))
    given = statement.params(before=datetime.now(UTC), rows_max=9)
    written = given.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    found = await connection.exec_driver_sql(f"{explain} {written}")
    return "\n".join(str(row) for row in found)
