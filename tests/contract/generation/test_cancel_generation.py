"""CancelGeneration."""

import asyncio
import time
from typing import Any

import pytest

from services.generation.events import (
    Committed,
    OutputStored,
    PredictionSeen,
    Refunded,
    Submitted,
)
from services.generation.state import Generation
from services.generation.state import Stage as SagaStage
from services.runtime.errors import NotFound, PreconditionFailed
from tests.contract.generation.harness import Service, Stage, Status, refusal
from tests.integration.generation.harness import (
    OUTPUT,
    PRICE,
    USER,
    Replica,
    eventually,
    generation_in,
    new_id,
    said,
)


async def cancel(service: Service, generation_id: str, user_id: str = USER) -> Any:
    return await service.call("CancelGeneration", user_id=user_id, generation_id=generation_id)


async def comes_to(replica: Replica, generation: Generation, stage: SagaStage) -> None:
    async def is_there() -> bool:
        return (await replica.now_is(generation)).stage is stage

    await eventually(is_there)


async def refund_when_asked(replica: Replica, generation: Generation) -> None:
    """Does what a worker would once the generation is REFUNDING."""
    await comes_to(replica, generation, SagaStage.REFUNDING)
    await replica.tell(generation, Refunded())


async def test_a_cancel_is_answered_when_it_was_carried_out(service: Service) -> None:
    ready = await service.replica.ready()
    working = asyncio.create_task(refund_when_asked(service.replica, ready))

    canceled = await cancel(service, ready.generation_id)
    await working
    again = await cancel(service, ready.generation_id)

    assert (canceled.status, canceled.stage) == (Status.CANCELED, Stage.STAGE_CANCELED)
    assert (canceled.charged_credits, canceled.cancel_refund_credits) == (0, PRICE)
    assert canceled.error.code == canceled.Error.CANCELED
    assert again == canceled


async def test_a_cancel_that_takes_longer_is_answered_as_far_as_it_is(service: Service) -> None:
    running = await service.replica.running("job")

    began = time.monotonic()
    canceling = await cancel(service, running.generation_id)

    # As long as the caller's deadline allows.
    assert time.monotonic() - began >= 3
    assert (canceling.status, canceling.stage) == (Status.PROCESSING, Stage.STAGE_CANCELING)
    assert canceling.cancel_refund_credits == PRICE


async def test_a_create_that_is_under_way_is_canceled_when_it_is_answered(
    service: Service,
) -> None:
    submitting = await service.replica.submitting()
    canceling = asyncio.create_task(cancel(service, submitting.generation_id))

    async def is_flagged() -> bool:
        return (await service.replica.now_is(submitting)).refund_percent is not None

    await eventually(is_flagged)

    taken = await service.replica.tell(submitting, Submitted(1, said("job")))
    stopped = await service.replica.tell(submitting, PredictionSeen(said("job", "canceled")))
    await service.replica.tell(submitting, Refunded())

    assert (taken.stage, stopped.stage) == (SagaStage.CANCELING, SagaStage.REFUNDING)
    assert (await canceling).status == Status.CANCELED


async def test_a_video_that_comes_first_is_kept_and_paid(service: Service) -> None:
    running = await service.replica.running("job")
    canceling = asyncio.create_task(cancel(service, running.generation_id))
    await comes_to(service.replica, running, SagaStage.CANCELING)

    for event in (
        PredictionSeen(said("job", "succeeded")),
        OutputStored("job", OUTPUT),
        Committed(),
    ):
        await service.replica.tell(running, event)

    completed = await canceling
    assert (completed.status, completed.charged_credits) == (Status.COMPLETED, PRICE)
    assert not completed.HasField("cancel_refund_credits")


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        (SagaStage.ARCHIVING, "ALREADY_SUCCEEDED"),
        (SagaStage.COMMITTING, "ALREADY_SUCCEEDED"),
        (SagaStage.COMPLETED, "ALREADY_SUCCEEDED"),
        (SagaStage.REFUNDING, "GENERATION_ENDED"),
        (SagaStage.FAILED, "GENERATION_ENDED"),
        (SagaStage.REJECTED, "GENERATION_ENDED"),
    ],
)
async def test_what_has_an_end_is_not_canceled(
    service: Service, stage: SagaStage, reason: str
) -> None:
    ended = generation_in(stage, output=OUTPUT, job_id=new_id())
    await service.replica.insert(ended)

    refused, metadata = await refusal(PreconditionFailed, cancel(service, ended.generation_id))

    assert refused == reason
    assert metadata["generation_id"] == ended.generation_id
    assert await service.replica.now_is(ended) == ended


async def test_another_user_s_generation_is_not_found(service: Service) -> None:
    ready = await service.replica.ready()

    reason, _ = await refusal(NotFound, cancel(service, ready.generation_id, "mallory"))

    assert reason == "GENERATION_NOT_FOUND"
    assert await service.replica.now_is(ready) == ready
