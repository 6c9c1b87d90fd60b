import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain

import pytest

from services.generation import history
from services.generation.history import PAGE_ROWS, Cursor, Filter, Place
from services.generation.state import Generation, Kind, Stage, Status
from tests.integration.generation.harness import (
    OUTPUT,
    REQUEST,
    USER,
    Replica,
    beginning,
    generation_in,
)
from tests.query_plans import explained, plans_of, sorts

BEGAN = datetime(2026, 5, 4, 3, 2, 1, 123_457, tzinfo=UTC)
BEFORE = generation_in(Stage.READY, created_at=BEGAN)
IMAGE = replace(
    REQUEST, kind=Kind.IMAGE_TO_VIDEO, model="i2v-14B", image_uri="https://example.com/fox.png"
)


def cursor(generation: Generation) -> Cursor:
    return Cursor(generation.created_at, generation.generation_id)


async def page_through(replica: Replica, size: int) -> list[list[Generation]]:
    pages: list[list[Generation]] = []
    after = None
    while len(pages) < 10:
        page = await replica.history.page(USER, size, after=after)
        pages.append(list(page.generations))
        if page.next is None:
            break
        assert page.next == cursor(page.generations[-1])
        after = page.next
    return pages


async def test_a_generation_is_found_by_its_user_only(replica: Replica) -> None:
    generation = generation_in(Stage.COMPLETED, output=OUTPUT, charged_credits=10)
    await replica.insert(generation)

    found = await replica.history.find(USER, generation.generation_id)
    foreign = await replica.history.find("bob", generation.generation_id)

    assert found == generation
    assert foreign is None


async def test_pages_are_newest_first_and_have_each_generation_once(replica: Replica) -> None:
    # Pairs have the same time, so that it takes the id as well to put them in order.
    generations = [
        generation_in(Stage.READY, created_at=BEGAN + timedelta(microseconds=number // 2))
        for number in range(11)
    ]
    await replica.insert(*generations, generation_in(Stage.READY, user_id="bob"))

    pages = await page_through(replica, 3)

    assert [len(page) for page in pages] == [3, 3, 3, 2]
    expected = sorted(generations, key=lambda g: (g.created_at, g.generation_id), reverse=True)
    assert list(chain(*pages)) == expected


async def test_pages_are_stable_while_others_write(replica: Replica) -> None:
    generations = await asyncio.gather(*(replica.begun() for _ in range(9)))
    first = await replica.history.page(USER, 4)
    await asyncio.gather(*(replica.begun(beginning()) for _ in range(5)))

    second = await replica.history.page(USER, 4, after=first.next)
    third = await replica.history.page(USER, 4, after=second.next)

    pages = [one.generations for one in (first, second, third)]
    assert [len(one) for one in pages] == [4, 4, 1]
    assert third.next is None
    assert {g.generation_id for g in chain(*pages)} == {g.generation_id for g in generations}


async def test_a_page_can_be_of_one_status_and_kind(replica: Replica) -> None:
    submitted = {"submitted_at": BEGAN}
    generations = [generation_in(stage) for stage in Stage if stage is not Stage.COMPLETED]
    generations += [
        generation_in(Stage.COMPLETED, output=OUTPUT),
        generation_in(Stage.PARKED, **submitted),
        generation_in(Stage.READY, request=IMAGE),
    ]
    await replica.insert(*generations)

    async def listed(status: Status | None, kind: Kind | None = None) -> list[Stage]:
        found = (await replica.history.page(USER, 100, Filter(status, kind))).generations
        assert all(status in (None, generation.status) for generation in found)
        return sorted(generation.stage for generation in found)

    assert await listed(Status.QUEUED) == [
        Stage.PARKED,
        Stage.READY,
        Stage.READY,
        Stage.RESERVING,
        Stage.SUBMITTING,
    ]
    assert await listed(Status.PROCESSING) == [
        Stage.ARCHIVING,
        Stage.CANCELING,
        Stage.COMMITTING,
        Stage.PARKED,
        Stage.REFUNDING,
        Stage.RUNNING,
    ]
    assert await listed(Status.COMPLETED) == [Stage.COMPLETED]
    assert await listed(Status.FAILED) == [Stage.FAILED]
    assert await listed(Status.CANCELED) == [Stage.CANCELED]
    assert await listed(None, Kind.IMAGE_TO_VIDEO) == [Stage.READY]
    assert await listed(Status.PROCESSING, Kind.IMAGE_TO_VIDEO) == []
    # Everything but what was refused, which stays out of all lists.
    assert len(await listed(None)) == len(generations) - 1


async def texts_with(replica: Replica, text: str) -> set[str]:
    page = await replica.history.page(USER, 100, Filter(text=text))
    return {generation.request.prompt for generation in page.generations}


async def test_a_page_can_be_of_those_whose_prompt_contains_a_text(replica: Replica) -> None:
    prompts = ["A Red Fox in snow", "ÉCLAIR au chocolat", "100% of_it \\ done", "100 percent / yes"]
    await replica.insert(
        *(generation_in(Stage.READY, request=replace(REQUEST, prompt=one)) for one in prompts)
    )

    assert await texts_with(replica, "red fOX") == {prompts[0]}
    assert await texts_with(replica, "É") == {prompts[1]}
    # Only the letters A to Z have two cases here, on every database.
    assert await texts_with(replica, "é") == set()
    assert await texts_with(replica, "Éclair") == {prompts[1]}
    # What has a meaning in patterns stands for itself.
    assert await texts_with(replica, "100%") == {prompts[2]}
    assert await texts_with(replica, "%") == {prompts[2]}
    assert await texts_with(replica, "_") == {prompts[2]}
    assert await texts_with(replica, "\\") == {prompts[2]}
    assert await texts_with(replica, "/") == {prompts[3]}
    assert await texts_with(replica, "") == set(prompts)


async def test_what_was_deleted_is_in_no_list_and_can_still_be_got(replica: Replica) -> None:
    now = datetime.now(UTC)
    deleted = generation_in(Stage.FAILED, deleted_at=now)
    await replica.insert(deleted, generation_in(Stage.FAILED))

    page = await replica.history.page(USER, 100)
    found = await replica.history.find(USER, deleted.generation_id)

    assert deleted not in page.generations
    assert len(page.generations) == 1
    assert found == deleted


async def test_a_filter_looks_at_so_many_generations_at_a_time_and_misses_none(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "SCAN_ROWS", 5)
    all_of_them = [
        generation_in(
            Stage.READY,
            created_at=BEGAN - timedelta(seconds=number),
            request=replace(REQUEST, prompt=f"video number {number}"),
        )
        for number in range(17)
    ]
    await replica.insert(*all_of_them)

    pages: list[list[Generation]] = []
    after = None
    while not pages or after is not None:
        page = await replica.history.page(USER, 3, Filter(text="1"), after)
        pages.append(list(page.generations))
        after = page.next

    # 1 is among the first five, 10 to 14 among the third, 15 and 16 among the last.
    assert [len(one) for one in pages] == [1, 0, 3, 3, 1]
    assert list(chain(*pages)) == [g for g in all_of_them if "1" in g.request.prompt]


@pytest.mark.parametrize(
    ("wanted", "queries"),
    [
        # Only a filter can match so little that where it stops looking must be known before.
        (Filter(), 1),
        (Filter(text="x"), 2),
        (Filter(status=Status.QUEUED), 2),
        (Filter(kind=Kind.IMAGE_TO_VIDEO), 2),
    ],
)
async def test_a_page_is_read_by_its_index(replica: Replica, wanted: Filter, queries: int) -> None:
    plans = await plans_of(
        replica.database, lambda: replica.history.page(USER, 50, wanted, cursor(BEFORE))
    )

    assert len(plans) == queries
    for plan in plans:
        assert "ix_generations_history" in plan
        assert "Sort" not in plan
        assert "TEMP B-TREE" not in plan


async def test_a_watcher_gets_the_unfinished_the_named_and_the_updated(replica: Replica) -> None:
    now = datetime.now(UTC)
    unfinished = generation_in(Stage.RUNNING, created_at=now - timedelta(hours=5))
    parked = generation_in(Stage.PARKED, created_at=now - timedelta(hours=4))
    named = generation_in(Stage.FAILED, created_at=now - timedelta(hours=3))
    rejected = generation_in(Stage.REJECTED, created_at=now - timedelta(hours=2))
    forgotten = generation_in(Stage.FAILED, created_at=now - timedelta(hours=1))
    updated = generation_in(Stage.FAILED, created_at=now)
    foreign = generation_in(Stage.RUNNING, user_id="bob")
    await replica.insert(unfinished, parked, named, rejected, forgotten, updated, foreign)
    ids = [g.generation_id for g in (named, rejected, unfinished, foreign)]

    found = [g async for g in replica.history.to_watch(USER, ids, now - timedelta(minutes=1))]
    unnamed = [g async for g in replica.history.to_watch(USER, [], None)]

    assert {g.generation_id: g for g in found} == {
        g.generation_id: g for g in (unfinished, parked, named, rejected, updated)
    }
    assert {g.generation_id for g in unnamed} == {unfinished.generation_id, parked.generation_id}


async def test_a_watcher_gets_the_updated_last_and_in_order(replica: Replica) -> None:
    now = datetime.now(UTC)
    # Whoever is cut off after any of them, and goes on behind the newest it saw, misses none.
    ages = (5, 1, 4, 2, 3)
    unfinished = [generation_in(Stage.RUNNING, created_at=now - timedelta(hours=n)) for n in ages]
    ended = [generation_in(Stage.FAILED, created_at=now - timedelta(minutes=n)) for n in ages]
    running = generation_in(Stage.RUNNING, created_at=now - timedelta(seconds=90))
    await replica.insert(running, *ended, *unfinished)
    since = now - timedelta(minutes=30)
    ids = [ended[0].generation_id]

    found = [g async for g in replica.history.to_watch(USER, ids, since)]

    assert {g.generation_id for g in found[:5]} == {g.generation_id for g in unfinished}
    moments = [g.updated_at for g in found[5:]]
    assert len(moments) == 6
    assert moments == sorted(moments)


async def test_a_long_history_of_updates_is_read_to_its_end(replica: Replica) -> None:
    now = datetime.now(UTC)
    history = [generation_in(Stage.FAILED, created_at=now) for _ in range(2 * PAGE_ROWS + 1)]
    await replica.insert(*history)

    found = [g async for g in replica.history.to_watch(USER, [], now)]

    assert sorted(g.generation_id for g in found) == sorted(g.generation_id for g in history)


async def test_changes_are_those_of_some_users_since_a_moment(replica: Replica) -> None:
    before, at, after = (
        generation_in(Stage.READY, created_at=BEGAN + timedelta(microseconds=number))
        for number in range(3)
    )
    foreign = generation_in(Stage.READY, user_id="bob", created_at=BEGAN)
    await replica.insert(after, at, before, foreign)

    changed = await replica.history.changed({USER, "eve"}, at.created_at)

    assert changed == [at, after]


async def test_the_reconciler_s_searches_read_only_what_they_find(replica: Replica) -> None:
    generations = [
        generation_in(Stage.COMPLETED, output=OUTPUT, created_at=BEGAN, finished_at=BEGAN)
        for _ in range(2000)
    ]
    generations += [
        generation_in(stage, created_at=BEGAN)
        for stage in (Stage.PARKED, Stage.READY)
        for _ in range(3)
    ]
    await replica.insert(*generations)

    async with explained(replica.database) as plans:
        ended = [g async for g in replica.history.ended(Place(BEGAN), BEGAN, 3)]
        parked = [g async for g in replica.history.parked(10)]
        overdue = [g async for g in replica.history.overdue(datetime.now(UTC), 10)]

    assert [len(found) for found in (ended, parked, overdue)] == [3, 3, 3]
    for plan, index in zip(
        plans, ["ix_generations_ended", "ix_generations_parked", "ix_generations_due"], strict=True
    ):
        assert index in plan
    # What is overdue is put in order: of what is under way there is little.
    assert [sorts(plan) for plan in plans] == [False, False, True]
