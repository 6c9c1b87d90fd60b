"""How the service says that it is doing, and by which indexes that is read."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from services.generation import statistics as module
from services.generation import tables
from services.generation.state import Failure, FailureCode, Generation, Stage, Status
from services.generation.statistics import EndCount, Statistics
from tests.integration.generation.harness import OUTPUT, Replica, generation_in
from tests.query_plans import plans_of

NOW = datetime.now(UTC)


@pytest.fixture
def statistics(replica: Replica) -> Statistics:
    return Statistics(replica.database)


def ended(
    stage: Stage, hours_ago: float = 1, took_s: float = 60, code: FailureCode | None = None
) -> Generation:
    finished_at = NOW - timedelta(hours=hours_ago)
    return generation_in(
        stage,
        created_at=finished_at - timedelta(seconds=took_s),
        finished_at=finished_at,
        failure=None if code is None else Failure(code, "It failed."),
        output=OUTPUT if stage is Stage.COMPLETED else None,
    )


async def predicted(replica: Replica, job_id: str, role: str = "ADOPTED", **fields: Any) -> None:
    generation = generation_in(Stage.FAILED)
    await replica.insert(generation)
    row = {
        "job_id": job_id,
        "generation_id": generation.generation_id,
        "attempt": 1,
        "role": role,
        "status": "starting",
        "first_seen_at": NOW,
        "found_by": "CREATE",
        "fence": 1,
        "failures": 0,
    }
    async with replica.database.write() as connection:
        await connection.execute(tables.predictions.insert(), [row | fields])


async def test_an_idle_service_has_nothing_to_tell(statistics: Statistics) -> None:
    stats = await statistics.read()

    assert (stats.stages, stats.ends) == ([], [])
    assert (stats.success_ratio, stats.completion_s) == (None, None)
    assert (stats.ends_by_webhook, stats.ends_by_poll) == (0, 0)
    assert (stats.unsettled_credits, stats.live_orphans, stats.orphans) == (0, 0, 0)
    assert (stats.paused_until, stats.paused_why) == (None, "")


async def test_what_is_unfinished_is_counted_by_stage_with_its_oldest(
    replica: Replica, statistics: Statistics
) -> None:
    old, older = NOW - timedelta(minutes=1), NOW - timedelta(minutes=2)
    await replica.insert(
        generation_in(Stage.READY, stage_since=old),
        generation_in(Stage.READY, stage_since=older, price_credits=20),
        generation_in(Stage.PARKED, stage_since=old, parked_from=Stage.COMMITTING),
        # Of this one nobody knows yet whether anything is reserved.
        generation_in(Stage.RESERVING, stage_since=old),
        ended(Stage.COMPLETED),
    )

    stats = await statistics.read()

    assert [(c.stage, c.generations, c.oldest_at) for c in stats.stages] == [
        (Stage.RESERVING, 1, old),
        (Stage.READY, 2, older),
        (Stage.PARKED, 1, old),
    ]
    assert stats.unsettled_credits == 40


async def test_ends_are_those_of_a_day_and_success_is_measured_among_what_could_succeed(
    replica: Replica, statistics: Statistics
) -> None:
    await replica.insert(
        *(ended(Stage.COMPLETED) for _ in range(3)),
        ended(Stage.COMPLETED, hours_ago=25),
        ended(Stage.FAILED, code=FailureCode.MODEL_FAILED),
        ended(Stage.FAILED, hours_ago=25, code=FailureCode.OUTPUT_LOST),
        ended(Stage.CANCELED, code=FailureCode.CANCELED),
        ended(Stage.REJECTED, code=FailureCode.INSUFFICIENT_CREDITS),
        generation_in(Stage.RUNNING),
    )

    stats = await statistics.read()

    assert stats.ends == [
        EndCount(Stage.COMPLETED, None, 3),
        EndCount(Stage.FAILED, FailureCode.MODEL_FAILED, 1),
        EndCount(Stage.CANCELED, FailureCode.CANCELED, 1),
    ]
    assert [end.status for end in stats.ends] == [
        Status.COMPLETED,
        Status.FAILED,
        Status.CANCELED,
    ]
    assert stats.success_ratio == 0.75


async def test_completion_is_measured_from_create_to_video(
    replica: Replica, statistics: Statistics
) -> None:
    await replica.insert(
        *(ended(Stage.COMPLETED, took_s=seconds) for seconds in range(10, 110, 10)),
        ended(Stage.COMPLETED, hours_ago=25, took_s=1000),
        ended(Stage.FAILED, took_s=1000),
    )

    assert (await statistics.read()).completion_s == (50, 90)


async def test_only_the_latest_completions_are_looked_at(
    replica: Replica, statistics: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DURATIONS_MAX", 2)
    await replica.insert(
        ended(Stage.COMPLETED, hours_ago=3, took_s=1000),
        ended(Stage.COMPLETED, hours_ago=2, took_s=20),
        ended(Stage.COMPLETED, hours_ago=1, took_s=10),
    )

    assert (await statistics.read()).completion_s == (10, 20)


async def test_who_told_of_the_ends_and_what_nobody_uses(
    replica: Replica, statistics: Statistics
) -> None:
    day_before = NOW - timedelta(hours=25)
    for number, by in enumerate(["WEBHOOK", "WEBHOOK", "POLL", "CREATE", "SEARCH"]):
        await predicted(replica, f"ended{number}", ended_at=NOW, ended_by=by)
    await predicted(replica, "before", ended_at=day_before, ended_by="POLL")
    await predicted(replica, "running")
    await predicted(replica, "orphan", "ORPHAN", due_at=NOW)
    await predicted(replica, "given up", "ORPHAN", first_seen_at=day_before)
    await predicted(replica, "gone", "ORPHAN", ended_at=NOW - timedelta(hours=1), ended_by="POLL")

    stats = await statistics.read()

    assert (stats.ends_by_webhook, stats.ends_by_poll) == (2, 2)
    assert (stats.live_orphans, stats.orphans) == (2, 2)


async def test_a_pause_is_told_while_it_lasts(replica: Replica, statistics: Statistics) -> None:
    async def pause(until: datetime) -> None:
        async with replica.database.write() as connection:
            await connection.execute(
                update(tables.gates)
                .where(tables.gates.c.name == "create")
                .values(paused_until=until, why="Payment required.")
            )

    later = datetime.now(UTC) + timedelta(minutes=1)
    await pause(later)
    during = await statistics.read()
    await pause(NOW)
    afterwards = await statistics.read()

    assert (during.paused_until, during.paused_why) == (later, "Payment required.")
    assert (afterwards.paused_until, afterwards.paused_why) == (None, "Payment required.")


async def test_a_stage_of_a_newer_release_is_passed_over(
    replica: Replica, statistics: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    await replica.insert(generation_in(Stage.READY), generation_in(Stage.RUNNING))
    monkeypatch.delitem(module._ORDER, "READY")

    assert [count.stage for count in (await statistics.read()).stages] == [Stage.RUNNING]


async def test_it_is_read_by_its_indexes(replica: Replica, statistics: Statistics) -> None:
    plans = await plans_of(replica.database, statistics.read)

    indexes = [
        "ix_generations_unfinished",
        "ix_predictions_ended_at",
        "ix_predictions_",  # Either one leads to the few that live.
        "ix_predictions_orphans",
        "gates",
        "ix_generations_ended",
        "ix_generations_",  # Either one leads to those of the day.
    ]
    assert len(plans) == len(indexes)
    for plan, index in zip(plans, indexes, strict=True):
        assert index in plan
    assert "Sort" not in plans[-1]
    assert "ORDER BY" not in plans[-1]


async def test_what_is_under_way_is_read_by_indexes_of_it_alone(
    replica: Replica, statistics: Statistics
) -> None:
    ended = [generation_in(Stage.REJECTED) for _ in range(500)]
    await replica.insert(*ended, generation_in(Stage.READY), generation_in(Stage.PARKED))

    plans = await plans_of(replica.database, statistics.read_open)

    assert len(plans) == 3
    for plan, index in zip(
        plans, ["ix_generations_unfinished", "gates", "ix_predictions_due"], strict=True
    ):
        assert index in plan


async def test_what_is_late_is_counted_and_what_waits_for_an_operator_is_not(
    replica: Replica, statistics: Statistics
) -> None:
    late = datetime.now(UTC) - timedelta(minutes=6)
    await replica.insert(
        *(generation_in(stage, deadline_at=late) for stage in (Stage.RUNNING, Stage.PARKED)),
        generation_in(Stage.RUNNING, deadline_at=late + timedelta(minutes=3)),
    )

    figures = await statistics.read_open()

    assert figures.overdue == 1
    assert figures.is_paused is False
    assert {count.stage: count.generations for count in figures.stages} == {
        Stage.RUNNING: 2,
        Stage.PARKED: 1,
    }
