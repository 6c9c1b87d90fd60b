import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import pytest

from services.generation.events import PredictionSeen, Reserved, Submitted
from services.generation.state import Generation, Stage
from services.generation.watchers import Watchers
from tests.integration.generation.harness import (
    USER,
    Replica,
    beginning,
    eventually,
    generation_in,
    said,
)

LIMIT_S = 15.0


@contextlib.asynccontextmanager
async def watching(
    replica: Replica, user_id: str = USER, *, refreshes: bool = False
) -> AsyncIterator[tuple[Watchers, asyncio.Event, list[Generation]]]:
    """Watchers, what stops them, and what a stream of `user_id` has yielded so far."""
    stopping = asyncio.Event()
    watchers = Watchers(replica.history, stopping)
    seen: list[Generation] = []

    async def known() -> AsyncIterator[Generation]:
        async for generation in replica.history.to_watch(user_id, [], None):
            yield generation

    async def read() -> None:
        async for generation in watchers.watch(user_id, known()):
            seen.append(generation)  # noqa: PERF401  Read while it grows.

    async def is_watched() -> bool:
        return user_id in watchers._mailboxes

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(read())
        if refreshes:
            tasks.create_task(watchers.run())
        await eventually(is_watched)
        try:
            yield watchers, stopping, seen
        finally:
            stopping.set()


async def reached(seen: Sequence[Generation], version: int) -> float:
    """Returns when a stream had yielded a version."""

    async def has() -> bool:
        return bool(seen) and seen[-1].version >= version

    await eventually(has, LIMIT_S)
    return time.monotonic()


async def test_a_stream_begins_with_what_is_and_goes_on_with_local_changes(
    replica: Replica,
) -> None:
    begun = await replica.begun()
    async with watching(replica) as (watchers, _, seen):
        await reached(seen, begun.version)

        # Nobody reads the database here: only what is published can arrive.
        ready = await replica.tell(begun, Reserved())
        watchers.publish(ready)
        await reached(seen, ready.version)

        assert seen == [begun, ready]


async def test_what_another_replica_wrote_arrives_within_seconds(
    replicas: Sequence[Replica],
) -> None:
    here, there = replicas
    async with watching(here, refreshes=True) as (_, _, seen):
        wrote_at = time.monotonic()
        begun = await there.begun()
        foreign = await there.begun(beginning(user_id="bob"))

        arrived_at = await reached(seen, begun.version)

        # Once a second the tables are looked at; the rest is for a machine that is busy.
        assert arrived_at - wrote_at < 4
        assert seen == [begun]
        assert foreign not in seen

        ready = await there.tell(begun, Reserved())
        await reached(seen, ready.version)
        assert seen == [begun, ready]


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_older_and_equal_versions_and_other_users_are_dropped(replica: Replica) -> None:
    async with watching(replica) as (watchers, _, seen):
        third = replace(generation_in(Stage.RUNNING), version=3)
        watchers.publish(third)
        await reached(seen, 3)

        watchers.publish(replace(third, version=2))
        watchers.publish(third)
        watchers.publish(replace(third, user_id="bob", version=9))
        watchers.publish(replace(third, version=5))
        watchers.publish(replace(third, version=4))
        await reached(seen, 5)

        assert [generation.version for generation in seen] == [3, 5]


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_change_while_the_state_is_being_read_is_not_lost(replica: Replica) -> None:
    watchers = Watchers(replica.history, asyncio.Event())
    generation = await replica.submitting()
    unchanged = generation_in(Stage.RUNNING)

    async def known() -> AsyncIterator[Generation]:
        watchers.publish(await replica.tell(generation, Submitted(1, said("job"))))
        watchers.publish(unchanged)
        yield unchanged
        yield generation

    stream = watchers.watch(USER, known())
    async with asyncio.timeout(LIMIT_S):
        seen = [await anext(stream) for _ in range(3)]
    # Closing is what the server does to a stream whose caller left.
    await stream.aclose()

    # What was in both is sent once.
    assert seen[:2] == [unchanged, generation]
    assert (seen[2].generation_id, seen[2].stage) == (generation.generation_id, Stage.RUNNING)
    assert not watchers._mailboxes


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_many_changes_of_one_generation_wait_as_one(replica: Replica) -> None:
    watchers = Watchers(replica.history, asyncio.Event())
    generation = await replica.running("job")

    async def known() -> AsyncIterator[Generation]:
        yield generation

    stream = watchers.watch(USER, known())
    await anext(stream)
    for percent in range(1, 90):
        logs = f" {percent}%|##  | {percent}/100 [00:01<00:02]"
        seen = PredictionSeen(said("job", "processing", logs=logs))
        watchers.publish(await replica.tell(generation, seen))
    async with asyncio.timeout(LIMIT_S):
        last = await anext(stream)
    await stream.aclose()

    assert last.progress_percent == 89


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_of_what_was_sent_only_the_last_is_remembered(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.generation.watchers.SENT_MAX", 2)
    watchers = Watchers(replica.history, asyncio.Event())
    first, second, third = (generation_in(Stage.RUNNING) for _ in range(3))

    async def known() -> AsyncIterator[Generation]:
        for generation in (first, second, third):
            yield generation

    stream = watchers.watch(USER, known())
    async with asyncio.timeout(LIMIT_S):
        for _ in range(3):
            await anext(stream)
        for change in (third, second, first):
            watchers.publish(change)
        again = await anext(stream)
    await stream.aclose()

    assert again == first


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_changes_that_wait_come_oldest_first(replica: Replica) -> None:
    watchers = Watchers(replica.history, asyncio.Event())
    first, second, third = (generation_in(Stage.RUNNING) for _ in range(3))

    async def known() -> AsyncIterator[Generation]:
        yield first

    stream = watchers.watch(USER, known())
    await anext(stream)
    for change in (second, third, replace(second, version=2)):
        watchers.publish(change)
    async with asyncio.timeout(LIMIT_S):
        seen = [await anext(stream) for _ in range(2)]
    await stream.aclose()

    assert seen == [third, replace(second, version=2)]


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_stream_ends_when_the_process_stops(replica: Replica) -> None:
    async with asyncio.timeout(LIMIT_S), watching(replica, refreshes=True) as (_, stopping, _):
        stopping.set()
