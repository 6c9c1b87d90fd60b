"""What the queue says, and by which indexes it is read."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from services.generation import queue as module
from services.generation import tables
from services.generation.catalog import Offer, load_catalog
from services.generation.estimates import Spread
from services.generation.queue import Queue
from services.generation.state import Generation, Stage
from tests.integration.generation.harness import (
    OPEN_GATE,
    OUTPUT,
    USER,
    Replica,
    generation_in,
)
from tests.query_plans import plans_of

BEGAN = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
KEY = ("t2v-1.3B", "480p")


@pytest.fixture
def queue(replica: Replica) -> Queue:
    return Queue(replica.database, Offer(load_catalog()), OPEN_GATE)


def completed(took_s: float, number: int = 0) -> Generation:
    """A video that was submitted after 5 s, started after 10 and had ended 2 s before its end."""
    began = BEGAN + timedelta(seconds=number)
    after = {
        "submitted_at": 5.0,
        "started_at": 10.0,
        "provider_ended_at": took_s - 2,
        "finished_at": took_s,
    }
    moments = {name: began + timedelta(seconds=seconds) for name, seconds in after.items()}
    return generation_in(
        Stage.COMPLETED, created_at=began, output=OUTPUT, charged_credits=10, **moments
    )


async def test_places_are_by_age_and_only_of_those_that_wait(
    replica: Replica, queue: Queue
) -> None:
    waiting = [
        generation_in(Stage.READY, created_at=BEGAN + timedelta(seconds=number))
        for number in (3, 1, 2)
    ]
    others = [generation_in(stage) for stage in Stage if stage is not Stage.COMPLETED]
    await replica.insert(*waiting, *(g for g in others if g.stage is not Stage.READY))

    line = await queue.line()

    assert [line.position(generation) for generation in waiting] == [3, 1, 2]
    assert line.ready == 3
    assert line.in_flight == 3
    assert line.paused_until is None
    assert abs(line.now - datetime.now(UTC)) < timedelta(minutes=1)


async def test_only_the_first_places_are_known_and_all_are_counted(
    replica: Replica, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POSITIONS_MAX", 2)
    waiting = [
        generation_in(Stage.READY, created_at=BEGAN + timedelta(seconds=number))
        for number in range(5)
    ]
    await replica.insert(*waiting)

    line = await queue.line()

    assert line.ready == 5
    assert [line.position(generation) for generation in waiting] == [1, 2, 6, 6, 6]


async def test_a_pause_is_told(replica: Replica, queue: Queue) -> None:
    until = datetime.now(UTC) + timedelta(minutes=1)
    async with replica.database.write() as connection:
        await connection.execute(update(tables.gates).values(paused_until=until))

    assert (await queue.line()).paused_until == until


async def test_times_are_those_of_the_latest_completed_ones(
    replica: Replica, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RUNS_MAX", 10)
    await replica.insert(
        *(completed(1000 + number, number) for number in range(10)),
        *(completed(105, 100_000 + number) for number in range(10)),
    )

    line = await queue.line()

    assert line.times[KEY].from_submit == Spread(100, 100, 100)
    assert line.times[KEY].from_start == Spread(95, 95, 95)
    assert line.times[KEY].from_end == Spread(2, 2, 2)
    assert line.provider_s == pytest.approx(98)


async def test_what_was_completed_in_other_ways_is_passed_over(
    replica: Replica, queue: Queue
) -> None:
    odd = generation_in(Stage.COMPLETED, created_at=BEGAN, output=OUTPUT)
    await replica.insert(odd, *(completed(105, number) for number in range(10)))

    assert (await queue.line()).times[KEY].from_submit == Spread(100, 100, 100)


async def test_it_is_read_once_a_second_however_many_ask(
    replica: Replica, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await queue.line()
    await replica.insert(generation_in(Stage.READY))

    assert await queue.line() is first
    monkeypatch.setattr(module, "LINE_AGE_S_MAX", 0.0)
    assert (await queue.line()).ready == 1


async def test_unfinished_ones_are_counted_up_to_the_limit(replica: Replica, queue: Queue) -> None:
    await replica.insert(
        *(generation_in(stage) for stage in Stage if stage is not Stage.COMPLETED),
        generation_in(Stage.READY, user_id="bob"),
    )

    assert await queue.unfinished(USER, 100) == len([s for s in Stage if not s.is_final])
    assert await queue.unfinished(USER, 3) == 3
    assert await queue.unfinished("bob", 100) == 1
    assert await queue.unfinished("eve", 100) == 0


async def test_it_is_read_by_its_indexes(replica: Replica, queue: Queue) -> None:
    runs, first, gate, in_flight = await plans_of(replica.database, queue.line)
    [unfinished] = await plans_of(replica.database, lambda: queue.unfinished(USER, 20))

    assert "ix_generations_ended" in runs
    assert "ix_generations_ready" in first
    assert "gates" in gate
    assert "ix_generations_in_flight" in in_flight
    assert "ix_generations_unfinished" in unfinished
    for plan in (runs, first):
        assert "Sort" not in plan
        assert "TEMP B-TREE" not in plan
