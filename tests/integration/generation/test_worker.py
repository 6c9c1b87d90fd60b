"""The worker with a real database, a real credits service and the provider's stand-in."""

import time
from dataclasses import replace
from datetime import timedelta

import pytest

from services.generation import tables
from services.generation.claims import Claims
from services.generation.commands import Happen
from services.generation.events import SubmitDeferred, Submitted
from services.generation.replicate import Replicate
from services.generation.state import FailureCode, Generation, Stage, Status
from services.generation.store import Store
from services.runtime.errors import Unavailable
from services.runtime.storage import open_storage
from services.simulator.faults.actions import Truncate
from tests.integration.generation.harness import (
    PRICE,
    PROMPT,
    REQUEST,
    USER,
    beginning,
    eventually,
)
from tests.integration.generation.house import (
    LIMIT_S,
    RESERVATION,
    TIMING,
    House,
    reaches,
    submission_of,
)
from tests.integration.generation.simulator_process import TOKEN
from tests.serving import free_address


async def test_a_video_is_made_stored_and_paid_by_polling_alone(house: House) -> None:
    async with house.replica() as replica:
        # It is begun as by a caller that died: nothing but the row says that there is work.
        begun = await replica.begun()
        await replica.make_due(begun)

        done = await reaches(replica, begun, Stage.COMPLETED)

        assert (done.status, done.charged_credits, done.attempt) == (Status.COMPLETED, PRICE, 1)
        (prediction,) = await house.simulator.predictions()
        assert done.job_id == prediction["id"]
        assert done.output is not None
        video = (house.storage / done.output.key).read_bytes()
        assert (len(video), video[4:8]) == (done.output.size_bytes, b"ftyp")
        assert await house.statement(done) == [RESERVATION, ("DEDUCTION", 0)]
        assert await house.credits.balance(USER) == (90, 0)
        (attempt,) = await replica.rows(tables.attempts)
        assert (attempt["state"], attempt["http_status"]) == ("CREATED", 201)
        assert f'"prompt": "{PROMPT}"' in attempt["input"]
        stages = [row["to_stage"] for row in await replica.rows(tables.transitions)]
        assert stages == ["READY", "SUBMITTING", "RUNNING", "ARCHIVING", "COMMITTING", "COMPLETED"]
        percents = [change.progress_percent for change in replica.changes]
        assert percents == sorted(percents)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_failed_prediction_is_refunded(house: House) -> None:
    async with house.replica() as replica:
        request = replace(REQUEST, prompt=f"{PROMPT} [fail]")
        begun = await replica.begun(beginning(request=request))
        await replica.make_due(begun)

        failed = await reaches(replica, begun, Stage.FAILED)

        assert failed.failure is not None
        assert failed.failure.code is FailureCode.MODEL_FAILED
        assert (failed.charged_credits, failed.output) == (0, None)
        assert await house.statement(failed) == [RESERVATION, ("REFUND", PRICE)]
        assert await house.credits.balance(USER) == (100, 0)


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize(
    ("broken", "stage", "statement"),
    [
        (2, Stage.COMPLETED, [RESERVATION, ("DEDUCTION", 0)]),
        (3, Stage.FAILED, [RESERVATION, ("REFUND", PRICE)]),
    ],
)
async def test_a_video_that_comes_broken_is_given_up_after_the_third_time_only(
    house: House, broken: int, stage: Stage, statement: list[tuple[str, int]]
) -> None:
    async with house.simulator.control() as control:
        await control.fault(Truncate(), times=broken)
    async with house.replica() as replica:
        begun = await replica.begun()
        await replica.make_due(begun)

        ended = await reaches(replica, begun, stage)

        code = None if ended.failure is None else ended.failure.code
        assert code is (None if stage is Stage.COMPLETED else FailureCode.OUTPUT_LOST)
        assert await house.statement(ended) == statement


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_new_worker_goes_on_where_another_was_stopped(house: House) -> None:
    async with house.replica() as replica:
        begun = await replica.begun(beginning(request=replace(REQUEST, prompt=f"{PROMPT} [slow]")))
        await replica.make_due(begun)
        await reaches(replica, begun, Stage.RUNNING)

    async with house.replica() as replica:
        done = await reaches(replica, begun, Stage.COMPLETED)

    assert await house.simulator.creates() == 1
    assert await house.statement(done) == [RESERVATION, ("DEDUCTION", 0)]


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_what_a_dead_process_may_have_submitted_is_never_submitted_again(
    house: House,
) -> None:
    timing = replace(TIMING, deadline_s=1.5, submit_margin_s=0.0, provider_lease_s=0.2)
    async with house.dead_replica(timing) as dead:
        submitting = await dead.submitting()
        await house.credits.reserve(submitting)

    async with house.replica(timing) as replica:
        failed = await reaches(replica, submitting, Stage.FAILED)

        assert failed.failure is not None
        assert failed.failure.code is FailureCode.SUBMIT_UNCERTAIN
        assert failed.finished_at is not None
        assert timedelta() <= failed.finished_at - failed.deadline_at < timedelta(seconds=2)
        assert await house.simulator.creates() == 0
        assert await house.statement(failed) == [RESERVATION, ("REFUND", PRICE)]
        (attempt,) = await replica.rows(tables.attempts)
        assert (attempt["attempt"], attempt["state"]) == (1, "UNKNOWN")


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_prediction_that_does_not_end_is_canceled_at_the_deadline_and_refunded(
    house: House,
) -> None:
    timing = replace(TIMING, deadline_s=3.0, submit_margin_s=0.5)
    async with house.replica(timing) as replica:
        request = replace(REQUEST, prompt=f"{PROMPT} [stuck]")
        begun = await replica.begun(beginning(request=request))
        await replica.make_due(begun)

        failed = await reaches(replica, begun, Stage.FAILED)

        assert failed.failure is not None
        assert failed.failure.code is FailureCode.MODEL_TIMED_OUT
        (prediction,) = await house.simulator.predictions()
        assert prediction["status"] == "canceled"
        assert await house.statement(failed) == [RESERVATION, ("REFUND", PRICE)]


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_while_credits_is_away_the_commit_is_repeated_and_charges_once(house: House) -> None:
    async with house.dead_replica() as dead:
        ready = await dead.ready()
        await house.credits.reserve(ready)
    await house.credits.stop()

    async with house.replica() as replica:
        await reaches(replica, ready, Stage.COMMITTING)

        async def has_failed_twice() -> bool:
            return (await replica.now_is(ready)).failures >= 2

        await eventually(has_failed_twice, LIMIT_S)
        stuck = await replica.now_is(ready)
        await house.credits.start()
        done = await reaches(replica, ready, Stage.COMPLETED)

    assert (stuck.stage, stuck.charged_credits) == (Stage.COMMITTING, 0)
    assert done.charged_credits == PRICE
    assert await house.statement(done) == [RESERVATION, ("DEDUCTION", 0)]
    assert await house.credits.balance(USER) == (90, 0)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_the_outcome_of_a_create_is_kept_while_the_database_is_away(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    happen = Store.happen
    lost: list[Happen] = []

    async def lose_twice(self: Store, command: Happen) -> Generation:
        if isinstance(command.event, Submitted) and len(lost) < 2:
            lost.append(command)
            raise Unavailable("DATABASE_UNAVAILABLE", "The database cannot be reached.")
        return await happen(self, command)

    monkeypatch.setattr(Store, "happen", lose_twice)
    async with house.replica() as replica:
        begun = await replica.begun()
        await replica.make_due(begun)
        done = await reaches(replica, begun, Stage.COMPLETED)

    assert len(lost) == 2
    assert (done.stage, done.attempt) == (Stage.COMPLETED, 1)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_what_was_not_sent_is_known_although_the_gate_cannot_be_closed(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_claims: Claims, why: str) -> None:
        raise Unavailable("DATABASE_UNAVAILABLE", why)

    monkeypatch.setattr(Claims, "note_unanswered", fail)
    provider = Replicate(TOKEN, f"http://{free_address()}", call_s=1.0)
    storage = open_storage(f"file://{house.storage}")
    try:
        async with house.dead_replica() as replica:
            generation = await replica.submitting()
            submission = submission_of(provider, replica.claims, replica.database, storage)
            event, record = await submission.submit(
                generation,
                submission.prepare(generation),
                generation.stage_since,
                send_before=time.monotonic() + 5,
            )
    finally:
        await provider.close()
        storage.close()

    assert event == SubmitDeferred(1)
    assert record.state == "NOT_SENT"
