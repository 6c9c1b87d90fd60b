import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain

import pytest
from sqlalchemy import select

from services.generation import tables
from services.generation.claims import Attempt, Claims, NotOffered
from services.generation.events import EffectFailed, SubmitDeferred, SubmitRefused
from services.generation.gate import GatePolicy
from services.generation.state import FailureCode, Generation, Stage
from services.generation.timing import FAST
from tests.integration.generation.harness import (
    SEED,
    Replica,
    attempt_of,
    eventually,
    generation_in,
    note_errors,
    opened_replicas,
)
from tests.query_plans import explained

LEASE_S = 60.0
FROZEN = 0.000001
"""A rate at which no token is refilled while a test runs."""


def in_stage(stage: Stage, number: int) -> list[Generation]:
    """Generations in the order of their creation, a second apart."""
    began = datetime.now(UTC) - timedelta(minutes=5)
    return [
        generation_in(stage, created_at=began + timedelta(seconds=second))
        for second in range(number)
    ]


def ids(generations: Iterable[Generation]) -> list[str]:
    return [generation.generation_id for generation in generations]


async def submit(claims: Claims, limit: int = 100) -> list[Generation]:
    return [generation for generation, _ in await claims.claim_ready(limit, attempt_of)]


async def test_the_gate_lets_a_burst_through_and_then_what_the_rate_refills(
    replica: Replica,
) -> None:
    await replica.insert(*in_stage(Stage.READY, 12))
    frozen = Claims(replica.database, FAST, GatePolicy(FROZEN, burst=4, in_flight_max=100), "test")
    refilled = Claims(replica.database, FAST, GatePolicy(20.0, burst=4, in_flight_max=100), "test")

    began = time.monotonic()
    burst = await submit(frozen)
    empty = await submit(frozen)

    async def next_one() -> list[Generation]:
        return await submit(refilled, limit=1)

    for _ in range(4):
        await eventually(next_one)
    elapsed_s = time.monotonic() - began

    assert (len(burst), empty) == (4, [])
    assert elapsed_s >= 4 / 20


async def test_the_oldest_are_submitted_first_and_in_flight_are_counted_over_all_replicas(
    url: str,
) -> None:
    policy = GatePolicy(rate_per_s=1000.0, burst=1000, in_flight_max=5)
    async with opened_replicas(url, policy=policy) as replicas:
        first, second = replicas
        ready = in_stage(Stage.READY, 8)
        await first.insert(*reversed(ready), generation_in(Stage.CANCELING))

        claimed = await asyncio.gather(*(submit(r.claims, limit=3) for r in [*replicas] * 3))
        full = await submit(second.claims)
        await first.tell(claimed[0][0], SubmitRefused(1, "no"))
        freed = await submit(second.claims)

        assert sorted(ids(chain(*claimed))) == sorted(ids(ready[:4]))
        assert full == []
        assert ids(freed) == ids(ready[4:5])


async def test_two_replicas_share_one_burst(url: str) -> None:
    policy = GatePolicy(FROZEN, burst=7, in_flight_max=100)
    async with opened_replicas(url, policy=policy) as replicas:
        await replicas[0].insert(*in_stage(Stage.READY, 20))

        claimed = await asyncio.gather(*(submit(r.claims, limit=5) for r in [*replicas] * 4))

        assert sum(map(len, claimed)) == len(set(ids(chain(*claimed)))) == 7


async def test_a_submission_is_written_down_before_it_is_made(replica: Replica) -> None:
    (ready,) = in_stage(Stage.READY, 1)
    await replica.insert(ready)

    ((generation, attempt),) = await replica.claims.claim_ready(5, attempt_of)

    assert await replica.now_is(ready) == generation
    assert (generation.stage, generation.attempt, generation.fence) == (
        Stage.SUBMITTING,
        1,
        ready.fence + 1,
    )
    lease_s = (generation.due_at or generation.stage_since) - generation.stage_since
    assert lease_s == timedelta(seconds=FAST.provider_lease_s)
    (row,) = await replica.rows(tables.attempts)
    assert (row["state"], row["seed"], row["input"]) == ("OPEN", SEED, attempt.input)
    assert row["settled_at"] is None
    (transition,) = await replica.rows(tables.transitions)
    assert (transition["event"], transition["to_stage"]) == ("SubmitClaimed", "SUBMITTING")


async def test_what_has_no_time_left_to_be_submitted_is_a_timer_instead(replica: Replica) -> None:
    now = datetime.now(UTC)
    too_late = {"deadline_at": now + timedelta(seconds=30), "due_at": now - timedelta(seconds=30)}
    late = generation_in(Stage.READY, **too_late)
    await replica.insert(late)

    before = await submit(replica.claims)
    due = await replica.claims.claim_due([Stage.READY], 10, LEASE_S)
    # Its lease makes it due later again, which is no reason to submit it.
    after = await submit(replica.claims)

    assert (before, after) == ([], [])
    assert ids(due) == ids([late])


async def test_what_was_put_off_lets_others_go_first(replica: Replica) -> None:
    put_off, other = await replica.submitting(), await replica.ready()
    await replica.tell(put_off, SubmitDeferred(1, wait_s=0.5))

    first = await submit(replica.claims)

    async def second() -> list[Generation]:
        return await submit(replica.claims)

    assert ids(first) == ids([other])
    assert ids(await eventually(second)) == ids([put_off])


async def test_a_model_that_is_not_offered_any_more_ends_in_a_refund(replica: Replica) -> None:
    gone, there = in_stage(Stage.READY, 2)
    await replica.insert(gone, there)

    def prepare(generation: Generation) -> Attempt:
        if generation.generation_id == gone.generation_id:
            raise NotOffered("This model is no longer offered.")
        return attempt_of(generation)

    claimed = await replica.claims.claim_ready(5, prepare)

    assert ids([generation for generation, _ in claimed]) == ids([there])
    refunding = await replica.now_is(gone)
    assert refunding.stage is Stage.REFUNDING
    assert refunding.failure is not None
    assert refunding.failure.code is FailureCode.INPUT_REJECTED
    assert refunding.failure.message == "This model is no longer offered."
    assert [row["generation_id"] for row in await replica.rows(tables.attempts)] == ids([there])
    rows = await replica.rows(tables.transitions, generation_id=gone.generation_id)
    assert [row["to_stage"] for row in rows] == ["SUBMITTING", "REFUNDING"]


async def test_a_pause_stops_all_replicas_and_is_never_shortened(
    replicas: Sequence[Replica],
) -> None:
    first, second = replicas
    await first.insert(*in_stage(Stage.READY, 3))

    await first.claims.pause_creates(60.0, "HTTP 429")
    (before,) = await first.rows(tables.gates, name="create")
    await second.claims.pause_creates(0.0, "HTTP 401")
    (after,) = await first.rows(tables.gates, name="create")

    assert [await submit(replica.claims) for replica in replicas] == [[], []]
    assert (before["tokens"], before["why"], after["why"]) == (0, "HTTP 429", "HTTP 401")
    assert before["paused_until"] == after["paused_until"]
    assert before["paused_until"] > datetime.now(UTC) + timedelta(seconds=30)


async def test_a_pause_ends_by_itself(replicas: Sequence[Replica]) -> None:
    first, second = replicas
    await first.insert(*in_stage(Stage.READY, 3))

    await first.claims.pause_creates(0.2, "HTTP 429")
    (gate,) = await first.rows(tables.gates, name="create")

    async def submitted() -> list[Generation]:
        return await submit(second.claims)

    assert await eventually(submitted)
    assert datetime.now(UTC) >= gate["paused_until"]


async def test_due_work_is_claimed_oldest_first_within_a_stage_and_limit(replica: Replica) -> None:
    now = datetime.now(UTC)
    due = [
        replace(generation_in(stage), due_at=now - timedelta(seconds=seconds))
        for stage, seconds in (
            (Stage.RUNNING, 1),
            (Stage.COMMITTING, 9),
            (Stage.RUNNING, 3),
            (Stage.RUNNING, 2),
            (Stage.CANCELING, 5),
        )
    ]
    later = replace(generation_in(Stage.RUNNING), due_at=now + timedelta(minutes=1))
    await replica.insert(*due, later, generation_in(Stage.PARKED))
    work = await replica.claims.look()

    claimed = await replica.claims.claim_due([Stage.RUNNING], 2, LEASE_S)
    rest = await replica.claims.claim_due([Stage.RUNNING, Stage.CANCELING], 9, LEASE_S)

    assert set(work.due) == {Stage.RUNNING, Stage.COMMITTING, Stage.CANCELING}
    assert not work.ready
    assert sorted(ids(claimed)) == sorted(ids([due[2], due[3]]))
    assert sorted(ids(rest)) == sorted(ids([due[0], due[4]]))
    for generation in claimed:
        assert generation.fence == 2
        assert generation.due_at is not None
        assert abs(generation.due_at - now - timedelta(seconds=LEASE_S)) < timedelta(seconds=10)
        assert await replica.now_is(generation) == generation
    assert await replica.claims.count_running() == 4


async def test_a_start_drops_leases_and_leaves_the_times_of_predictions_that_nobody_looked_at(
    replica: Replica,
) -> None:
    later = datetime.now(UTC) + timedelta(minutes=1)
    waiting, leased, refunding, ready = (
        replace(generation_in(stage), due_at=later, claims=claims)
        for stage, claims in (
            (Stage.RUNNING, 0),
            (Stage.RUNNING, 1),
            (Stage.REFUNDING, 0),
            (Stage.READY, 0),
        )
    )
    await replica.insert(waiting, leased, refunding, ready)

    await replica.claims.drop_leases()
    due = await replica.claims.claim_due([Stage.RUNNING, Stage.REFUNDING, Stage.READY], 9, LEASE_S)

    assert sorted(ids(due)) == sorted(ids([leased, refunding]))


async def test_each_due_generation_is_claimed_by_one_replica(replicas: Sequence[Replica]) -> None:
    due = in_stage(Stage.COMMITTING, 60)
    await replicas[0].insert(*due)

    claimed = await asyncio.gather(
        *(r.claims.claim_due([Stage.COMMITTING], 7, LEASE_S) for r in [*replicas] * 10)
    )

    assert sorted(ids(chain(*claimed))) == sorted(ids(due))


async def test_a_lease_ends_and_the_work_comes_due_again(replicas: Sequence[Replica]) -> None:
    first, second = replicas
    (due,) = in_stage(Stage.COMMITTING, 1)
    await first.insert(due)

    async def claim() -> list[Generation]:
        return await second.claims.claim_due([Stage.COMMITTING], 1, LEASE_S)

    (dead,) = await first.claims.claim_due([Stage.COMMITTING], 1, 0.2)
    at_once = await claim()
    (alive,) = await eventually(claim)
    void = await first.tell(dead, EffectFailed(Stage.COMMITTING, is_outage=True))

    assert at_once == []
    assert alive.fence == dead.fence + 1
    assert void == alive


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_a_locked_row_is_passed_over(replicas: Sequence[Replica]) -> None:
    first, second = replicas
    locked, free = in_stage(Stage.COMMITTING, 2)
    ready_locked, ready_free = in_stage(Stage.READY, 2)
    await first.insert(locked, free, ready_locked, ready_free)

    async with first.database.write() as connection:
        await connection.execute(
            select(tables.generations)
            .where(tables.generations.c.generation_id.in_(ids([locked, ready_locked])))
            .with_for_update()
        )
        async with asyncio.timeout(2):
            due = await second.claims.claim_due([Stage.COMMITTING], 5, LEASE_S)
            submitted = await submit(second.claims)

    assert (ids(due), ids(submitted)) == (ids([free]), ids([ready_free]))


async def test_claims_and_write_backs_of_the_same_rows_do_not_deadlock(url: str) -> None:
    timing = replace(FAST, poll_s=0.0, backoff_max_s=0.0)
    async with opened_replicas(url, timing=timing) as replicas:
        errors = [note_errors(replica.database) for replica in replicas]
        await replicas[0].insert(*in_stage(Stage.COMMITTING, 20))

        async def work(replica: Replica) -> int:
            written = 0
            for _ in range(6):
                claimed = await replica.claims.claim_due([Stage.COMMITTING], 9, lease_s=0.0)
                failed = EffectFailed(Stage.COMMITTING, is_outage=True)
                after = await asyncio.gather(*(replica.tell(g, failed) for g in claimed))
                written += sum(b.fence > a.fence for a, b in zip(claimed, after, strict=True))
            return written

        written = await asyncio.gather(*(work(replica) for replica in [*replicas] * 2))

        generations = await replicas[0].generations()
        assert errors == [[], []]
        assert sum(written) > 20
        # Every claim and every write-back that counted is in the fence.
        assert all(g.fence > 1 + g.failures > 1 for g in generations)


async def test_looking_for_work_does_not_read_what_has_ended(replica: Replica) -> None:
    now = datetime.now(UTC)
    await replica.insert(*(generation_in(Stage.FAILED, finished_at=now) for _ in range(2000)))
    await replica.insert(*in_stage(Stage.READY, 3), *in_stage(Stage.RUNNING, 3))

    async with explained(replica.database, is_small=True) as plans:
        await replica.claims.look()
        await replica.claims.count_running()

    looked, counted = plans
    for index in (
        "ix_generations_due",
        "ix_generations_ready",
        "ix_predictions_due",
        "ix_attempts_search",
    ):
        assert index in looked
    assert "ix_generations_in_flight" in counted
