"""Creates whose outcome was lost, and predictions that nobody uses."""

from dataclasses import replace

import pytest

from services.generation import tables
from services.generation.claims import CLAIMS_MAX
from services.generation.events import SubmitUnknown
from services.generation.state import FailureCode, Generation, Stage
from services.simulator.faults.action import Operation
from services.simulator.faults.actions import (
    CreateThenDrop,
    Drop,
    Fail,
    NoCredit,
    OmitFromList,
)
from services.simulator.faults.fault import Match
from tests.integration.generation.harness import (
    PRICE,
    PROMPT,
    REQUEST,
    Replica,
    attempt_of,
    beginning,
    body_of,
    delivery,
    eventually,
)
from tests.integration.generation.house import LIMIT_S, RESERVATION, TIMING, House, reaches

pytestmark = pytest.mark.parametrize("backend", ["sqlite"])

QUICK = replace(
    TIMING,
    search_delays_s=(0.1, 0.2),
    search_grace_s=0.5,
    provider_call_s=1.0,
    send_before_s=0.5,
    probe_s=0.5,
    trouble_pause_s=0.2,
)
"""Sure of an absence two seconds after a create."""


async def attempts(replica: Replica) -> list[tuple[int, str]]:
    return [(row["attempt"], row["state"]) for row in await replica.rows(tables.attempts)]


async def roles(replica: Replica) -> dict[str, tuple[str, str, bool]]:
    """Returns role, status and whether they are still seen to, of all booked predictions."""
    rows = await replica.rows(tables.predictions)
    return {row["job_id"]: (row["role"], row["status"], row["due_at"] is not None) for row in rows}


async def test_a_prediction_whose_create_was_not_answered_is_found_in_the_list(
    house: House,
) -> None:
    async with house.replica(QUICK) as replica, house.simulator.control() as simulator:
        await simulator.fault(CreateThenDrop())
        begun = await replica.begun()
        await replica.make_due(begun)

        done = await reaches(replica, begun, Stage.COMPLETED)

        assert (done.attempt, done.resubmissions, done.charged_credits) == (1, 0, PRICE)
        assert await attempts(replica) == [(1, "CREATED")]
        (prediction,) = await replica.rows(tables.predictions)
        assert (prediction["found_by"], prediction["role"]) == ("SEARCH", "ADOPTED")
        assert len(await simulator.predictions()) == 1


async def test_a_create_that_made_nothing_is_made_once_more_when_that_is_sure(
    house: House,
) -> None:
    async with house.replica(QUICK) as replica, house.simulator.control() as simulator:
        await simulator.fault(Drop(), Match(operation=Operation.CREATE))
        begun = await replica.begun()
        await replica.make_due(begun)

        done = await reaches(replica, begun, Stage.COMPLETED)

        assert (done.attempt, done.resubmissions) == (2, 1)
        assert await attempts(replica) == [(1, "ABSENT"), (2, "CREATED")]
        assert len(await simulator.predictions()) == 1
        assert await house.statement(done) == [RESERVATION, ("DEDUCTION", 0)]


async def test_it_is_made_once_more_and_not_twice(house: House) -> None:
    async with house.replica(QUICK) as replica, house.simulator.control() as simulator:
        await simulator.fault(Drop(), Match(operation=Operation.CREATE), times=None)
        begun = await replica.begun()
        await replica.make_due(begun)

        failed = await reaches(replica, begun, Stage.FAILED)

        assert failed.failure is not None
        assert failed.failure.code is FailureCode.SUBMIT_UNCERTAIN
        assert await attempts(replica) == [(1, "ABSENT"), (2, "ABSENT")]
        assert await house.statement(failed) == [RESERVATION, ("REFUND", PRICE)]


async def test_what_appears_after_its_generation_went_on_is_canceled_and_booked(
    house: House,
) -> None:
    async with house.replica(QUICK) as replica, house.simulator.control() as simulator:
        await simulator.fault(CreateThenDrop())
        await simulator.fault(
            OmitFromList(), Match(operation=Operation.LIST), lasts_s=4.0, times=None
        )
        request = replace(REQUEST, prompt=f"{PROMPT} [stuck]")
        begun = await replica.begun(beginning(request=request))
        await replica.make_due(begun)
        again = await reaches_attempt(replica, begun.generation_id, 2)

        # What the list hid is there after all: the first prediction is told of by a webhook.
        first, second = sorted(
            await simulator.predictions(), key=lambda one: str(one["created_at"])
        )
        seed = (await replica.rows(tables.attempts, attempt=1))[0]["seed"]
        told = body_of(first["id"], "processing", input={"seed": seed})
        await replica.deliver(delivery("late", told, begun.generation_id, 1))

        async def is_over() -> bool:
            return (await roles(replica)).get(first["id"]) == ("ORPHAN", "canceled", False)

        await eventually(is_over, LIMIT_S)
        assert (await roles(replica))[second["id"]][0] == "ADOPTED"
        assert (await replica.now_is(again)).job_id == second["id"]


async def reaches_attempt(replica: Replica, generation_id: str, attempt: int) -> Generation:
    async def is_there() -> Generation | None:
        found = await replica.history.find_any(generation_id)
        there = found is not None and found.attempt == attempt and found.job_id is not None
        return found if there else None

    return await eventually(is_there, LIMIT_S)


async def test_a_prediction_that_the_provider_interrupted_is_made_once_more(house: House) -> None:
    async with house.replica(QUICK) as replica, house.simulator.control() as simulator:
        await simulator.fault(Fail(error="Prediction interrupted; please retry (code: PA)"))
        begun = await replica.begun()
        await replica.make_due(begun)

        done = await reaches(replica, begun, Stage.COMPLETED)

        assert (done.attempt, done.resubmissions) == (2, 1)
        by_role = sorted(role for role, _, _ in (await roles(replica)).values())
        assert by_role == ["ADOPTED", "SUPERSEDED"]
        assert await house.statement(done) == [RESERVATION, ("DEDUCTION", 0)]


async def test_while_the_account_has_no_credit_one_create_at_a_time_probes(house: House) -> None:
    async with house.replica(QUICK) as replica, house.simulator.control() as simulator:
        await simulator.fault(NoCredit(), Match(operation=Operation.CREATE), times=2)
        begun = [await replica.begun() for _ in range(4)]
        await replica.make_due(*begun)

        for generation in begun:
            await reaches(replica, generation, Stage.COMPLETED)

        (gate,) = await replica.rows(tables.gates, name="create")
        assert (gate["is_probing"], gate["troubles"]) == (False, 0)
        assert "no credit left" in gate["why"]
        refused = [state for _, state in await attempts(replica) if state == "REFUSED"]
        assert len(refused) == 2


async def test_what_kills_its_worker_again_and_again_is_parked_and_nothing_else_is(
    house: House,
) -> None:
    async with house.dead_replica() as dead:
        poison, innocent = await dead.ready(), await dead.ready()
        for generation in (poison, innocent):
            await house.credits.reserve(generation)
        submitted = await dead.claims.claim_ready(10, attempt_of)
        for generation, attempt in submitted:
            await dead.tell(generation, SubmitUnknown(attempt.attempt))
        for _ in range(CLAIMS_MAX + 1):
            await dead.make_due(poison)
            claimed = await dead.claims.claim_due([Stage.SUBMITTING], 1, 60.0)
            if not claimed:
                await dead.claims.claim_suspect(60.0)

        stuck = await dead.now_is(poison)
        assert (stuck.stage, stuck.parked_from) == (Stage.PARKED, Stage.SUBMITTING)
        assert stuck.park_reason
        assert (await dead.now_is(innocent)).stage is Stage.SUBMITTING
