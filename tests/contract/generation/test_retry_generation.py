"""RetryGeneration and DeleteGenerations."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.generation import tables
from services.generation.rows import values_of
from services.generation.state import Failure, FailureCode, Generation, Kind
from services.generation.state import Stage as SagaStage
from services.runtime.errors import AlreadyExists, InvalidRequest, NotFound, PreconditionFailed
from tests.contract.generation.harness import Service, Stage, Status, refusal
from tests.integration.generation.harness import (
    OUTPUT,
    REQUEST,
    SEED,
    USER,
    generation_in,
    new_id,
)

FAILURE = Failure(FailureCode.MODEL_FAILED, "E1001")


async def retry(service: Service, generation: Generation, new: str, **fields: Any) -> Any:
    return await service.call(
        "RetryGeneration",
        **{
            "user_id": USER,
            "generation_id": generation.generation_id,
            "new_generation_id": new,
        }
        | fields,
    )


@pytest.mark.parametrize("stage", [SagaStage.FAILED, SagaStage.CANCELED])
async def test_what_failed_is_made_again_with_a_reservation_of_its_own(
    service: Service, stage: SagaStage
) -> None:
    request = replace(REQUEST, aspect_ratio="9:16", seed=11)
    failed = generation_in(stage, failure=FAILURE, request=request)
    await service.replica.insert(failed)
    new = new_id()

    made = await retry(service, failed, new)
    again = await retry(service, failed, new)

    assert (made.generation_id, made.retry_of) == (new, failed.generation_id)
    assert (made.prompt, made.aspect_ratio, made.seed) == (request.prompt, "9:16", 11)
    assert made.stage == Stage.STAGE_READY
    assert again.create_time == made.create_time
    assert await service.credits.moves(USER, new) == [("RESERVATION", -10)]


async def test_the_seed_that_was_drawn_is_kept_on_request(service: Service) -> None:
    submitting = await service.replica.submitting()
    failed = replace(
        generation_in(SagaStage.FAILED, failure=FAILURE), generation_id=submitting.generation_id
    )
    async with service.replica.database.write() as connection:
        await connection.execute(
            tables.generations.update()
            .where(tables.generations.c.generation_id == failed.generation_id)
            .values(values_of(failed))
        )

    kept = await retry(service, failed, new_id(), keep_seed=True)
    drawn = await retry(service, failed, new_id())

    assert kept.seed == SEED
    assert not drawn.HasField("seed")


@pytest.mark.parametrize(
    "stage", [SagaStage.READY, SagaStage.RUNNING, SagaStage.COMPLETED, SagaStage.PARKED]
)
async def test_only_what_has_failed_is_made_again(service: Service, stage: SagaStage) -> None:
    parked_from = SagaStage.RUNNING if stage is SagaStage.PARKED else None
    other = generation_in(stage, output=OUTPUT, job_id=new_id(), parked_from=parked_from)
    await service.replica.insert(other)
    new = new_id()

    reason, metadata = await refusal(PreconditionFailed, retry(service, other, new))

    assert (reason, metadata["status"]) == ("NOT_RETRYABLE", other.status)
    assert await service.replica.history.find_any(new) is None


async def test_a_retry_is_refused_like_a_create(service: Service) -> None:
    failed = generation_in(SagaStage.FAILED, failure=FAILURE)
    foreign = generation_in(SagaStage.FAILED, failure=FAILURE, user_id="grace")
    gone = generation_in(
        SagaStage.FAILED, failure=FAILURE, request=replace(REQUEST, model="t2v-9B")
    )
    await service.replica.insert(failed, foreign, gone)
    taken = await service.create()

    assert (await refusal(NotFound, retry(service, foreign, new_id())))[0] == (
        "GENERATION_NOT_FOUND"
    )
    reused, _ = await refusal(AlreadyExists, retry(service, failed, taken.generation_id))
    assert reused == "GENERATION_ID_REUSED"
    assert (await refusal(InvalidRequest, retry(service, gone, new_id())))[0] == "MODEL_NOT_FOUND"


async def test_a_retry_without_its_image_says_what_to_do(service: Service) -> None:
    request = replace(
        REQUEST, kind=Kind.IMAGE_TO_VIDEO, model="i2v-14B", image_uri=f"upload:{new_id()}"
    )
    failed = generation_in(SagaStage.FAILED, failure=FAILURE, request=request)
    await service.replica.insert(failed)

    with pytest.raises(PreconditionFailed) as raised:
        await retry(service, failed, new_id())

    assert raised.value.reason == "IMAGE_REMOVED"
    assert raised.value.message == "Its image was removed; make a new generation with it."
    assert raised.value.metadata == {"generation_id": failed.generation_id}


async def test_what_was_deleted_is_made_again_too(service: Service) -> None:
    deleted = generation_in(SagaStage.FAILED, failure=FAILURE, deleted_at=datetime.now(UTC))
    await service.replica.insert(deleted)

    made = await retry(service, deleted, new_id())

    assert made.retry_of == deleted.generation_id


async def test_what_has_ended_is_deleted_from_history_and_its_id_stays_taken(
    service: Service,
) -> None:
    completed = generation_in(
        SagaStage.COMPLETED, output=OUTPUT, job_id="job", provider_ended_at=datetime.now(UTC)
    )
    failed = generation_in(SagaStage.FAILED, failure=FAILURE)
    ready = generation_in(SagaStage.READY)
    foreign = generation_in(SagaStage.FAILED, failure=FAILURE, user_id="grace")
    await service.replica.insert(completed, failed, ready, foreign)
    unknown = new_id()
    ids = [g.generation_id for g in (completed, failed, ready, foreign)] + [unknown, unknown]

    for _ in range(2):  # A repetition changes nothing.
        answer = await service.call("DeleteGenerations", user_id=USER, generation_ids=ids)
        assert list(answer.deleted_ids) == ids[:2]
        assert list(answer.unfinished_ids) == ids[2:3]
        assert list(answer.unknown_ids) == [foreign.generation_id, unknown]

    listed = await service.call("ListGenerations", user_id=USER)
    assert [g.generation_id for g in listed.generations] == [ready.generation_id]
    deleted = await service.get(completed.generation_id)
    assert deleted.status == Status.COMPLETED
    assert deleted.HasField("delete_time")
    assert deleted.video_uri == ""
    row = await service.replica.now_is(completed)
    assert (row.erase_at, row.deleted_at) == (row.deleted_at, row.updated_at)
    reused, _ = await refusal(AlreadyExists, service.create(generation_id=failed.generation_id))
    assert reused == "GENERATION_ID_REUSED"


async def test_more_than_a_hundred_are_not_deleted_at_once(service: Service) -> None:
    ids = [new_id() for _ in range(101)]

    reason, _ = await refusal(
        InvalidRequest, service.call("DeleteGenerations", user_id=USER, generation_ids=ids)
    )

    assert reason == "INVALID_FIELD"
