import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import event as sqlalchemy_event

from services.generation import tables
from services.generation.commands import AttemptRecord, Happen
from services.generation.deliveries import Disposition
from services.generation.events import (
    Committed,
    EffectFailed,
    Event,
    OutputStored,
    PredictionSeen,
    Refunded,
    Reserved,
    Submitted,
    SubmitUnknown,
    Woken,
)
from services.generation.state import FailureCode, Generation, Stage
from services.generation.timing import FAST
from services.runtime.database import Database
from services.runtime.errors import ServiceFailed
from tests.integration.generation.harness import (
    OUTPUT,
    PRICE,
    REQUEST,
    SEED,
    Replica,
    beginning,
    body_of,
    delivery,
    new_id,
    opened,
    opened_replica,
    said,
)

APPLIED, DUPLICATE, STALE = Disposition.APPLIED, Disposition.DUPLICATE, Disposition.STALE
ORPHAN, UNMATCHED = Disposition.ORPHAN, Disposition.UNMATCHED


def count_commits(database: Database) -> list[object]:
    """A list that grows by one with every SQL commit."""
    commits: list[object] = []
    sqlalchemy_event.listen(database.writer.sync_engine, "commit", commits.append)
    return commits


async def booked(replica: Replica) -> dict[str, tuple[str, str]]:
    """Role and status of each prediction."""
    return {
        row["job_id"]: (row["role"], row["status"])
        for row in await replica.rows(tables.predictions)
    }


async def stages(replica: Replica, generation: Generation) -> list[tuple[str, str, str]]:
    rows = await replica.rows(tables.transitions, generation_id=generation.generation_id)
    return [(row["event"], row["from_stage"], row["to_stage"]) for row in rows]


async def test_begin_creates_a_generation_once(replica: Replica) -> None:
    command = beginning()

    first = await replica.store.begin(command)
    again = await replica.store.begin(replace(command, request=replace(REQUEST, seed=1)))

    assert (first.created, again.created) == (True, False)
    assert again.generation == first.generation == await replica.now_is(first.generation)
    assert first.generation.stage is Stage.RESERVING
    assert first.generation.request == REQUEST
    assert first.generation.deadline_at - first.generation.created_at == timedelta(
        seconds=FAST.deadline_s
    )
    assert replica.changes == [first.generation]


async def test_concurrent_begins_of_one_id_create_one_row(replicas: Sequence[Replica]) -> None:
    command = beginning()

    begun = await asyncio.gather(
        *(replica.store.begin(command) for _ in range(10) for replica in replicas)
    )

    assert sum(one.created for one in begun) == 1
    assert {one.generation for one in begun} == {await replicas[0].now_is(begun[0].generation)}
    assert len(await replicas[0].generations()) == 1


async def test_one_database_transaction_takes_commands_of_all_kinds(replica: Replica) -> None:
    waiting = await replica.submitting()
    fresh = beginning()
    proven = delivery("msg", body_of("job"), waiting.generation_id)
    commits = count_commits(replica.database)

    begun, reserved, missing, applied, duplicate, again = await asyncio.gather(
        replica.store.begin(fresh),
        replica.store.happen(Happen(fresh.generation_id, Reserved(), 1)),
        replica.store.happen(Happen(new_id(), Reserved(), 1)),
        replica.store.deliver(proven),
        replica.store.deliver(proven),
        replica.store.begin(fresh),
        return_exceptions=True,
    )

    assert len(commits) == 1
    assert not isinstance(begun, BaseException)
    assert begun.created
    assert begun.generation.stage is Stage.RESERVING
    assert isinstance(reserved, Generation)
    assert reserved.stage is Stage.READY
    assert isinstance(missing, LookupError)
    assert not isinstance(applied, BaseException)
    assert not isinstance(duplicate, BaseException)
    assert (applied.disposition, duplicate.disposition) == (APPLIED, DUPLICATE)
    assert not isinstance(again, BaseException)
    assert (again.created, again.generation) == (False, reserved)
    assert await replica.now_is(reserved) == reserved
    assert (await replica.now_is(waiting)).job_id == "job"


async def test_a_command_that_cannot_be_written_fails_alone(replica: Replica) -> None:
    good, bad = delivery("msg", body_of("job")), delivery("x" * 257, body_of("job"))

    stored, refused, begun = await asyncio.gather(
        replica.deliver(good), replica.deliver(bad), replica.begun(), return_exceptions=True
    )

    assert stored is UNMATCHED
    assert isinstance(refused, ServiceFailed)
    assert isinstance(begun, Generation)
    assert [row["webhook_id"] for row in await replica.rows(tables.prediction_events)] == ["msg"]


@pytest.mark.parametrize("plan", [Woken(), EffectFailed(Stage.SUBMITTING, True)])
async def test_a_plan_counts_only_under_the_fence_that_it_was_made_under(
    replica: Replica, plan: Event
) -> None:
    generation = await replica.submitting()

    late = await replica.tell(generation, plan, fence=generation.fence - 1)
    in_time = await replica.tell(generation, plan)

    assert late == generation
    assert in_time.fence == generation.fence + 1
    assert in_time.due_at == generation.deadline_at
    assert await replica.now_is(generation) == in_time


async def test_a_fact_counts_whatever_the_fence(replica: Replica) -> None:
    generation = await replica.submitting()

    running = await replica.tell(generation, Submitted(1, said("job")), fence=0)

    assert (running.stage, running.job_id) == (Stage.RUNNING, "job")
    assert await replica.now_is(generation) == running


async def test_a_delivery_counts_once(replica: Replica) -> None:
    generation = await replica.running("job")
    command = delivery("msg", body_of("job", "succeeded"), generation.generation_id)

    first = await replica.store.deliver(command)
    after = await replica.now_is(generation)
    second = await replica.store.deliver(command)

    assert (first.disposition, first.generation) == (APPLIED, after)
    assert after.stage is Stage.ARCHIVING
    assert (second.disposition, second.generation) == (DUPLICATE, None)
    assert await replica.now_is(generation) == after
    (row,) = await replica.rows(tables.prediction_events)
    assert (row["body"], row["disposition"]) == (command.body, "APPLIED")


async def test_a_delivery_to_two_replicas_at_once_counts_once(replicas: Sequence[Replica]) -> None:
    generations = [await replicas[0].running(f"job-{number}") for number in range(10)]

    for number, generation in enumerate(generations):
        body = body_of(f"job-{number}", "succeeded")
        command = delivery("msg", body, generation.generation_id)
        answers = await asyncio.gather(*(replica.deliver(command) for replica in replicas))
        assert sorted(answers) == [APPLIED, DUPLICATE]


async def test_a_broken_query_does_not_hide_the_proven_event(replica: Replica) -> None:
    generation = await replica.submitting()
    body = body_of("job")

    broken = await replica.deliver(delivery("msg", body))
    proven = await replica.deliver(delivery("msg", body, generation.generation_id))

    assert (broken, proven) == (UNMATCHED, APPLIED)
    assert (await replica.now_is(generation)).job_id == "job"
    rows = await replica.rows(tables.prediction_events)
    assert [(row["generation_id"], row["attempt"], row["disposition"]) for row in rows] == [
        ("", 0, "UNMATCHED"),
        (generation.generation_id, 1, "APPLIED"),
    ]


async def test_a_webhook_adopts_before_the_creates_answer(replica: Replica) -> None:
    generation = await replica.submitting()
    body = body_of("job", "processing", input={"seed": SEED})

    adopted = await replica.deliver(delivery("msg", body, generation.generation_id))
    after = await replica.now_is(generation)
    record = AttemptRecord(1, "CREATED", 201, body_of("job"))
    answered = await replica.tell(generation, Submitted(1, said("job")), record=record)

    assert adopted is APPLIED
    assert (after.stage, after.job_id, after.provider_status) == (
        Stage.RUNNING,
        "job",
        "processing",
    )
    assert answered == after == await replica.now_is(generation)
    assert await booked(replica) == {"job": ("ADOPTED", "starting")}
    (attempt,) = await replica.rows(tables.attempts)
    assert (attempt["state"], attempt["http_status"]) == ("CREATED", 201)


async def test_a_webhook_that_finds_a_lost_create_may_bring_its_end(replica: Replica) -> None:
    generation = await replica.submitting()
    unsure = await replica.tell(generation, SubmitUnknown(1))
    body = body_of("job", "succeeded")

    disposition = await replica.deliver(delivery("msg", body, unsure.generation_id))

    assert disposition is APPLIED
    assert (await replica.now_is(unsure)).stage is Stage.ARCHIVING
    assert (await stages(replica, unsure))[-1] == ("Submitted", "SUBMITTING", "ARCHIVING")
    assert await booked(replica) == {"job": ("ADOPTED", "succeeded")}


async def test_a_known_prediction_needs_no_proven_address(replica: Replica) -> None:
    generation = await replica.running("job")

    disposition = await replica.deliver(delivery("msg", body_of("job", "succeeded")))

    assert disposition is APPLIED
    assert (await replica.now_is(generation)).stage is Stage.ARCHIVING


async def test_a_second_prediction_of_a_generation_is_booked_as_orphan(replica: Replica) -> None:
    generation = await replica.running("job")
    before = await replica.now_is(generation)

    second = await replica.deliver(delivery("msg-2", body_of("other"), generation.generation_id))
    ended = await replica.deliver(delivery("msg-3", body_of("other", "failed")))
    answered = await replica.tell(generation, Submitted(1, said("third")))

    assert (second, ended) == (ORPHAN, STALE)
    assert answered == before == await replica.now_is(generation)
    assert await booked(replica) == {
        "job": ("ADOPTED", "starting"),
        "other": ("ORPHAN", "failed"),
        "third": ("ORPHAN", "starting"),
    }


@pytest.mark.parametrize(("attempt", "seed"), [(2, SEED), (1, SEED + 1)])
async def test_a_prediction_of_another_attempt_or_seed_is_not_adopted(
    replica: Replica, attempt: int, seed: int
) -> None:
    generation = await replica.submitting()
    body = body_of("job", input={"seed": seed})

    disposition = await replica.deliver(delivery("msg", body, generation.generation_id, attempt))

    assert disposition is ORPHAN
    assert await replica.now_is(generation) == generation
    assert await booked(replica) == {"job": ("ORPHAN", "starting")}


async def test_an_event_that_belongs_nowhere_is_kept_and_changes_nothing(replica: Replica) -> None:
    unknown = await replica.deliver(delivery("msg-1", body_of("job")))
    nobodys = await replica.deliver(delivery("msg-2", body_of("job"), new_id()))
    nonsense = await replica.deliver(delivery("msg-3", b"\x00 no JSON"))

    assert (unknown, nobodys, nonsense) == (UNMATCHED, UNMATCHED, Disposition.UNREADABLE)
    assert len(await replica.rows(tables.prediction_events)) == 3
    assert await booked(replica) == {}
    assert replica.changes == []


async def test_nothing_is_reopened_after_the_end(replica: Replica) -> None:
    generation = await replica.running("job")
    refunding = await replica.tell(generation, PredictionSeen(said("job", "failed")))
    failed = await replica.tell(refunding, Refunded())

    late = await replica.deliver(delivery("msg", body_of("job", "succeeded")))
    for event in (Committed(), OutputStored("job", OUTPUT), PredictionSeen(said("job"))):
        await replica.tell(failed, event)

    assert late is STALE
    assert await replica.now_is(failed) == failed
    assert (failed.stage, failed.charged_credits, failed.due_at) == (Stage.FAILED, 0, None)
    assert failed.failure is not None
    assert failed.failure.code is FailureCode.MODEL_FAILED
    assert await booked(replica) == {"job": ("ADOPTED", "failed")}


async def test_a_prediction_that_we_gave_up_is_an_orphan_until_its_end(url: str) -> None:
    timing = replace(FAST, deadline_s=0.0, submit_margin_s=-60.0, cancel_limit_s=0.0)
    async with opened(url) as database, opened_replica(database, timing) as replica:
        late = await replica.running("job")

        gave_up = await replica.tell(late, PredictionSeen(said("job", "processing")))
        before = await booked(replica)
        ended = await replica.deliver(delivery("msg", body_of("job", "succeeded")))

        assert (late.stage, gave_up.stage) == (Stage.CANCELING, Stage.REFUNDING)
        assert before == {"job": ("ORPHAN", "processing")}
        assert ended is STALE
        assert await replica.now_is(late) == gave_up
        assert await booked(replica) == {"job": ("ORPHAN", "succeeded")}


async def test_a_life_leaves_its_attempt_and_its_transitions(replica: Replica) -> None:
    generation = await replica.submitting()
    record = AttemptRecord(1, "CREATED", 201, b"x" * 100_000, "fine")
    running = await replica.tell(generation, Submitted(1, said("job")), record=record)
    archiving = await replica.tell(running, PredictionSeen(said("job", "succeeded")))
    committing = await replica.tell(archiving, OutputStored("job", OUTPUT))

    completed = await replica.tell(committing, Committed())

    assert await replica.now_is(completed) == completed
    assert (completed.charged_credits, completed.output, completed.due_at) == (PRICE, OUTPUT, None)
    assert completed.finished_at is not None
    assert await stages(replica, completed) == [
        ("Reserved", "RESERVING", "READY"),
        ("SubmitClaimed", "READY", "SUBMITTING"),
        ("Submitted", "SUBMITTING", "RUNNING"),
        ("PredictionSeen", "RUNNING", "ARCHIVING"),
        ("OutputStored", "ARCHIVING", "COMMITTING"),
        ("Committed", "COMMITTING", "COMPLETED"),
    ]
    (attempt,) = await replica.rows(tables.attempts)
    assert (attempt["state"], attempt["http_status"], attempt["detail"], attempt["seed"]) == (
        "CREATED",
        201,
        "fine",
        SEED,
    )
    assert attempt["answer"] == b"x" * 65_536
    assert attempt["settled_at"] >= attempt["created_at"]
    assert await booked(replica) == {"job": ("ADOPTED", "succeeded")}
