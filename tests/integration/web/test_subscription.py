"""A connection reads what is known no faster than its reader, and again when that fails."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import datetime, timedelta

from services.client.generations import Generation
from services.runtime.errors import Unavailable
from services.web.event_ids import Position
from services.web.mailbox import KNOWN_MAX, Mailbox
from services.web.subscription import Known, Subscription
from tests.integration.generation.harness import eventually
from tests.unit.web.mail import NOW, generation

LIMIT_S = 10.0
MINUTE = timedelta(minutes=1)


def subscribed(known: Known, updated_after: datetime | None = None) -> Subscription:
    position = None if updated_after is None else Position(updated_after, 0)
    mailbox = Mailbox(position, NOW)
    return Subscription(
        mailbox, known, updated_after, asyncio.Event(), lambda: NOW, heard=lambda _: None
    )


async def taken(subscription: Subscription) -> object:
    letter = await subscription.take(LIMIT_S)
    return None if letter is None else letter.content


async def test_what_changes_while_the_known_is_read_follows_it() -> None:
    known, changed = generation("known"), generation("changed", 2)
    told: list[Callable[[Generation], None]] = []

    async def read(_: datetime | None) -> AsyncGenerator[Generation]:
        told[0](changed)
        yield generation("changed", 1)
        yield known

    subscription = subscribed(read)
    told.append(subscription.mailbox.put)

    assert [await taken(subscription) for _ in range(2)] == [known, changed]
    assert await subscription.take(0) is None
    await subscription.close()


async def test_a_broken_reading_goes_on_behind_the_newest_that_it_saw() -> None:
    asked: list[datetime | None] = []
    since = NOW - 5 * MINUTE
    first = generation("first", updated_at=NOW - 2 * MINUTE)
    second = generation("second", updated_at=NOW - MINUTE)

    async def read(updated_after: datetime | None) -> AsyncGenerator[Generation]:
        asked.append(updated_after)
        # One that is unfinished comes first each time, however old it is.
        yield generation("old", updated_at=NOW - 9 * MINUTE)
        if len(asked) == 1:
            yield first
            raise Unavailable("", "away")
        yield second

    subscription = subscribed(read, since)

    letters = [await taken(subscription) for _ in range(3)]
    assert letters == [generation("old", updated_at=NOW - 9 * MINUTE), first, second]
    assert asked == [since, first.updated_at]
    await subscription.close()


async def test_a_defect_of_the_reading_ends_neither_the_stream_nor_its_changes() -> None:
    async def read(_: datetime | None) -> AsyncGenerator[Generation]:
        yield generation("known")
        raise ZeroDivisionError

    subscription = subscribed(read)

    assert await taken(subscription) == generation("known")
    assert await subscription.take(0.05) is None
    await subscription.close()


async def test_the_known_is_read_no_faster_than_it_is_taken() -> None:
    read_by_now = 0

    async def read(_: datetime | None) -> AsyncGenerator[Generation]:
        nonlocal read_by_now
        for number in range(10 * KNOWN_MAX):
            read_by_now = number + 1
            yield generation(str(number))

    subscription = subscribed(read)

    async def full() -> bool:
        return not subscription.mailbox.has_room

    await eventually(full, LIMIT_S)
    assert read_by_now <= KNOWN_MAX + 1
    seen = [await taken(subscription) for _ in range(10 * KNOWN_MAX)]
    assert seen == [generation(str(number)) for number in range(10 * KNOWN_MAX)]
    await subscription.close()


async def test_a_reader_that_leaves_ends_the_reading() -> None:
    ended = asyncio.Event()

    async def read(_: datetime | None) -> AsyncGenerator[Generation]:
        try:
            yield generation("known")
            await asyncio.Event().wait()
        finally:
            ended.set()

    subscription = subscribed(read)
    await taken(subscription)

    await subscription.close()

    assert ended.is_set()
