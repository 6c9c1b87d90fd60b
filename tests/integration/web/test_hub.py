"""Each reader of a user hears of everything, though the services are read once, and may be away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.contextvars import bound_contextvars, get_contextvars

from services.client.credits import Balance, CreditsClient
from services.client.generations import Generation
from services.generation.events import Reserved
from services.generation.state import Stage
from services.runtime.errors import Unavailable
from services.web.event_ids import Position, format_position
from services.web.hub import Hub
from services.web.mailbox import Reset
from services.web.subscription import Subscription
from tests.conftest import NewDatabase
from tests.integration.generation.harness import USER, attempt_of, beginning, generation_in
from tests.integration.web.live import LiveServices, eventually, running_services

LIMIT_S = 30.0
OTHER = "bob"


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
async def live(
    new_database: NewDatabase, tmp_path: Path, templates: dict[tuple[str, str], str]
) -> AsyncIterator[LiveServices]:
    async with running_services(new_database("generation"), tmp_path, templates) as services:
        for user_id in (USER, OTHER):
            await services.credits.open(user_id)
        yield services


@contextlib.asynccontextmanager
async def hub_of(live: LiveServices, **limits: Any) -> AsyncIterator[Hub]:
    """A hub as one replica of web has it."""
    given = {"users_max": 10} | limits
    hub = Hub(live.credits_client, live.generations, asyncio.Event(), **given)
    try:
        yield hub
    finally:
        await hub.close()


@dataclass
class Reader:
    """Who reads a subscription, and what it knows by now."""

    subscription: Subscription
    generations: dict[str, Generation] = field(default_factory=dict)
    balance: Balance | None = None
    resets: int = 0
    letters: int = 0
    last_event_id: str = ""

    async def read(self) -> None:
        while not self.subscription.has_ended:
            letter = await self.subscription.take(LIMIT_S)
            if letter is None:
                continue
            self.letters += 1
            self.last_event_id = format_position(letter.position)
            match letter.content:
                case Generation() as news:
                    known = self.generations.get(news.generation_id)
                    if known is None or known.version <= news.version:
                        self.generations[news.generation_id] = news
                case Balance() as news:
                    self.balance = news
                case Reset():
                    self.generations.clear()
                    self.resets += 1

    async def is_cut_off(self) -> None:
        async def ended() -> bool:
            return self.subscription.has_ended

        await eventually(ended, LIMIT_S)

    async def has(self, *generation_ids: str) -> None:
        async def knows() -> bool:
            return set(generation_ids) <= set(self.generations)

        await eventually(knows, LIMIT_S)

    async def has_version(self, generation_id: str, version: int) -> Generation:
        async def newest() -> Generation | None:
            known = self.generations.get(generation_id)
            return known if known is not None and known.version >= version else None

        return await eventually(newest, LIMIT_S)

    async def has_available(self, credits_available: int) -> None:
        async def knows() -> bool:
            return self.balance is not None and self.balance.available_credits == credits_available

        await eventually(knows, LIMIT_S)


@contextlib.asynccontextmanager
async def reading(
    hub: Hub, user_id: str = USER, last_event_id: str | None = None
) -> AsyncIterator[Reader]:
    async with hub.subscribe(user_id, last_event_id) as subscription:
        reader = Reader(subscription)
        task = asyncio.create_task(reader.read())
        try:
            yield reader
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_two_connections_of_a_user_get_the_same_and_others_nothing_of_it(
    live: LiveServices,
) -> None:
    mine = await live.replica.begun()
    theirs = await live.replica.begun(beginning(user_id=OTHER))
    async with (
        hub_of(live) as hub,
        reading(hub) as first,
        reading(hub) as second,
        reading(hub, OTHER) as other,
    ):
        for reader in (first, second):
            await reader.has(mine.generation_id)
            await reader.has_available(100)
        changed = await live.replica.tell(mine, Reserved())
        await live.credits.add(USER, 11)
        for reader in (first, second):
            await reader.has_version(mine.generation_id, changed.version)
            await reader.has_available(111)
        await other.has(theirs.generation_id)

        assert first.generations == second.generations
        assert set(other.generations) == {theirs.generation_id}
        assert other.balance is not None
        assert other.balance.user_id == OTHER
        assert (hub.users, hub.connections) == (2, 3)


async def test_a_user_is_watched_once_and_forgotten_some_time_after_the_last_connection(
    live: LiveServices,
) -> None:
    async with hub_of(live, linger_s=0.2) as hub:
        async with reading(hub), reading(hub) as second:
            await second.has_available(100)
            assert hub.users == 1

        async def forgotten() -> bool:
            return hub.users == 0

        # Within the time a reload takes, the watch goes on.
        assert hub.users == 1
        async with reading(hub) as third:
            await third.has_available(100)
            with pytest.raises(AssertionError):
                await eventually(forgotten, limit_s=0.4)

        await eventually(forgotten, LIMIT_S)


async def test_users_beyond_the_limit_are_sent_away(live: LiveServices) -> None:
    async with hub_of(live, users_max=1) as hub, reading(hub):
        with pytest.raises(Unavailable):
            await hub.subscribe(OTHER).__aenter__()

        async with reading(hub) as again:
            await again.has_available(100)


async def is_refused(hub: Hub, user_id: str = USER) -> bool:
    """Whether a connection would not be let in now."""
    try:
        async with hub.subscribe(user_id):
            return False
    except Unavailable as error:
        return error.reason == "NOT_WATCHED"


async def is_watched_again(hub: Hub, live: LiveServices) -> None:
    """Waits until a connection is let in, and hears of what happens."""

    async def let_in() -> bool:
        return not await is_refused(hub)

    await eventually(let_in, LIMIT_S)
    async with reading(hub) as reader:
        await reader.has((await live.replica.begun()).generation_id)
        await reader.has_available(100)


@pytest.mark.parametrize("away", ["generation", "credits"])
async def test_while_a_service_is_away_for_long_nobody_relies_on_a_stream(
    live: LiveServices, away: str
) -> None:
    service = live.generation if away == "generation" else live.credits
    begun = await live.replica.begun()
    async with hub_of(live, blind_s=0.5) as hub, reading(hub) as reader:
        await reader.has(begun.generation_id)
        await reader.has_available(100)
        await service.stop()

        await reader.is_cut_off()
        assert await is_refused(hub)

        await service.start()
        await is_watched_again(hub, live)


async def test_who_has_nothing_to_be_told_is_watched_all_the_same(live: LiveServices) -> None:
    async with hub_of(live, blind_s=2.0) as hub, reading(hub) as reader:
        await reader.has_available(100)

        with pytest.raises(AssertionError):
            await eventually(lambda: is_refused(hub), limit_s=3.0)

        assert not reader.subscription.has_ended


async def test_while_a_service_refuses_streams_nobody_relies_on_one(live: LiveServices) -> None:
    await live.generation.stop()
    await live.generation.start(streams_max=1)
    others = live.generations.watch(OTHER)
    taken = await live.replica.begun(beginning(user_id=OTHER))
    assert (await anext(others)).generation_id == taken.generation_id
    async with hub_of(live, blind_s=0.5) as hub:
        async with reading(hub) as reader:
            await reader.is_cut_off()
            assert await is_refused(hub)

        await others.aclose()
        await live.generation.stop()
        await live.generation.start()
        await is_watched_again(hub, live)


async def test_nobody_waits_for_ever_behind_what_is_known_and_cannot_be_read(
    live: LiveServices,
) -> None:
    await live.generation.stop()
    await live.generation.start(streams_max=2)
    begun = await live.replica.begun()
    async with hub_of(live, blind_s=0.5) as hub, reading(hub) as first:
        await first.has(begun.generation_id)
        # It is watched: nothing but the watch tells of this.
        await first.has((await live.replica.begun()).generation_id)
        others = live.generations.watch(OTHER)
        taken = await live.replica.begun(beginning(user_id=OTHER))
        assert (await anext(others)).generation_id == taken.generation_id

        async with reading(hub) as second:
            await second.is_cut_off()
            assert await is_refused(hub)

        await others.aclose()
        await is_watched_again(hub, live)


async def test_who_is_refused_again_and_again_finds_no_watch_that_seems_new(
    live: LiveServices,
) -> None:
    await live.generation.stop()
    async with hub_of(live, blind_s=0.2, linger_s=0.3) as hub:
        async with reading(hub) as reader:
            await reader.is_cut_off()

        with pytest.raises(AssertionError):
            await eventually(lambda: is_forgotten(hub), limit_s=1.0)
        assert await is_refused(hub)


async def is_forgotten(hub: Hub) -> bool:
    return hub.users == 0


async def test_what_the_log_is_told_of_a_watch_names_its_user_and_no_request(
    live: LiveServices,
) -> None:
    contexts: list[dict[str, Any]] = []

    class Noting(CreditsClient):
        def watch_balance(self, user_id: str, *given: Any, **named: Any) -> Any:
            contexts.append(get_contextvars())
            return super().watch_balance(user_id, *given, **named)

    async with Noting(live.credits.address) as credits_client:
        hub = Hub(credits_client, live.generations, asyncio.Event(), users_max=1)
        with bound_contextvars(trace_id="of-a-request", service="web"):
            async with reading(hub) as reader:
                await reader.has_available(100)
        await hub.close()

    assert contexts == [{"service": "web", "user_id": USER}]


async def test_without_an_event_id_the_unfinished_come_and_nothing_else(
    live: LiveServices,
) -> None:
    old = datetime.now(UTC) - timedelta(days=400)
    running = generation_in(Stage.RUNNING, created_at=old)
    ended = generation_in(Stage.FAILED, created_at=old)
    await live.replica.insert(running, ended)

    async with hub_of(live) as hub, reading(hub) as reader:
        await reader.has(running.generation_id)
        last = await live.replica.begun()
        await reader.has(last.generation_id)

        assert set(reader.generations) == {running.generation_id, last.generation_id}


@pytest.mark.parametrize("same_replica", [True, False])
async def test_after_a_cut_nothing_is_lost_at_this_replica_or_another(
    live: LiveServices, same_replica: bool
) -> None:
    kept = await live.replica.begun()
    # A witness keeps the watch of the first hub running all the time.
    async with hub_of(live) as hub, hub_of(live) as another, reading(hub) as witness:
        async with reading(hub) as reader:
            await reader.has(kept.generation_id)
            await reader.has_available(100)
        # Ended before it comes back: it is neither unfinished nor told of any more.
        missed = generation_in(Stage.FAILED)
        await live.replica.insert(missed)
        await live.credits.add(USER, 5)
        await witness.has(missed.generation_id)
        await witness.has_available(105)

        back_at = hub if same_replica else another
        async with reading(back_at, USER, reader.last_event_id) as resumed:
            await resumed.has(missed.generation_id)
            await resumed.has_available(105)
            changed = await live.replica.tell(kept, Reserved())
            await resumed.has_version(kept.generation_id, changed.version)

            assert resumed.resets == 0


async def test_an_old_event_id_brings_all_that_changed_since(live: LiveServices) -> None:
    now = datetime.now(UTC)
    history = [
        generation_in(Stage.FAILED, created_at=now - timedelta(minutes=number))
        for number in range(600)
    ]
    await live.replica.insert(*history)
    since = format_position(Position(now - timedelta(minutes=500, seconds=30), 0))
    expected = {generation.generation_id for generation in history[:501]}

    async with (
        hub_of(live) as hub,
        reading(hub) as running,
        reading(hub, USER, since) as reader,
    ):
        await running.has_available(100)
        await reader.has(*expected)

        assert set(reader.generations) == expected
        assert reader.resets == 0


@pytest.mark.parametrize("event_id", ["", "fox", "99999999999999999.1"])
async def test_an_event_id_that_is_none_of_ours_begins_anew(
    live: LiveServices, event_id: str
) -> None:
    unfinished = await live.replica.begun()

    async with hub_of(live) as hub, reading(hub, USER, event_id) as reader:
        await reader.has(unfinished.generation_id)
        await reader.has_available(100)

        assert reader.resets == 1


async def test_the_service_of_generations_may_leave_and_come_back(live: LiveServices) -> None:
    begun = await live.replica.begun()
    async with hub_of(live) as hub, reading(hub) as reader:
        await reader.has(begun.generation_id)
        await live.generation.stop()

        # Both happen while nobody tells of it, and one is over before anybody does.
        missed = generation_in(Stage.FAILED)
        await live.replica.insert(missed)
        changed = await live.replica.tell(begun, Reserved())
        await live.credits.add(USER, 7)
        await reader.has_available(107)
        async with reading(hub) as newcomer:
            await newcomer.has_available(107)
            await live.generation.start()

            await reader.has(missed.generation_id)
            await reader.has_version(begun.generation_id, changed.version)
            await newcomer.has_version(begun.generation_id, changed.version)


async def test_the_service_of_credits_may_leave_and_come_back(live: LiveServices) -> None:
    async with hub_of(live) as hub, reading(hub) as reader:
        await reader.has_available(100)
        await live.credits.stop()
        begun = await live.replica.begun()
        await reader.has(begun.generation_id)

        await live.credits.start()
        await live.credits.add(USER, 9)

        await reader.has_available(109)


async def test_a_reader_that_stands_still_begins_anew_and_holds_up_nobody(
    live: LiveServices,
) -> None:
    async with (
        hub_of(live) as hub,
        hub.subscribe(USER) as still,
        reading(hub) as reader,
    ):
        many = [generation_in(Stage.FAILED) for _ in range(1001)]
        await live.replica.insert(*many)
        await reader.has(*(generation.generation_id for generation in many))

        async def overflowed() -> bool:
            return still.mailbox.waiting == 0

        await eventually(overflowed, LIMIT_S)
        unfinished = await live.replica.begun()
        await reader.has(unfinished.generation_id)
        slow = Reader(still)
        task = asyncio.create_task(slow.read())
        await slow.has(unfinished.generation_id)
        task.cancel()

        assert slow.resets == 1


async def test_places_in_the_queue_are_told_as_they_change(live: LiveServices) -> None:
    first, second = await live.replica.ready(), await live.replica.ready()
    async with hub_of(live, queue_s=0.05) as hub, reading(hub) as reader:
        await reader.has(first.generation_id, second.generation_id)
        assert reader.generations[second.generation_id].queue_position == 2

        await live.replica.claims.claim_ready(1, attempt_of)

        async def moved_up() -> bool:
            return reader.generations[second.generation_id].queue_position == 1

        await eventually(moved_up, LIMIT_S)
        assert reader.generations[second.generation_id].version == second.version


async def test_readers_are_woken_when_the_process_leaves(live: LiveServices) -> None:
    draining = asyncio.Event()
    hub = Hub(live.credits_client, live.generations, draining, users_max=1)
    async with hub.subscribe(USER) as subscription:
        while await subscription.take(0.5) is not None:
            pass
        waiting = asyncio.create_task(subscription.take(LIMIT_S))
        await asyncio.sleep(0)

        draining.set()

        async with asyncio.timeout(5):
            assert await waiting is None
    await hub.close()
