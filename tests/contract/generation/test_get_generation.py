"""GetGeneration."""

import uuid

import grpc
from reelworks.generation.v1 import generation_pb2

from services.generation.events import (
    Committed,
    OutputStored,
    PredictionSeen,
    Refunded,
)
from services.runtime.errors import NotFound
from tests.contract.generation.harness import Service, Stage, Status, refusal, violations
from tests.integration.generation.harness import OUTPUT, USER, said

Code = generation_pb2.Generation.Error.Code


async def test_what_was_created_is_answered(service: Service) -> None:
    created = await service.create()

    assert await service.get(created.generation_id) == created


async def test_another_users_generation_and_an_unknown_one_are_not_found(service: Service) -> None:
    created = await service.create()
    unknown = str(uuid.uuid4())

    for generation_id, user_id in ((created.generation_id, "bob"), (unknown, USER)):
        assert await refusal(NotFound, service.get(generation_id, user_id)) == (
            "GENERATION_NOT_FOUND",
            {"generation_id": generation_id},
        )


async def test_malformed_ids_are_all_named(service: Service) -> None:
    reason, rules = await violations(service.get("", "a b"))

    assert (reason, set(rules)) == ("INVALID_FIELD", {"user_id", "generation_id"})


async def test_a_running_one_shows_its_job_and_progress(service: Service) -> None:
    running = await service.replica.running("job")
    logs = " 37%|###  | 11/30 [00:10<00:20]"
    started_at = "2026-01-01T00:00:00Z"
    seen = PredictionSeen(said("job", "processing", logs=logs, started_at=started_at))
    await service.replica.tell(running, seen)

    answer = await service.get(running.generation_id)

    assert (answer.status, answer.stage) == (Status.PROCESSING, Stage.STAGE_RUNNING)
    assert (answer.job_id, answer.attempt, answer.progress_percent) == ("job", 1, 37)
    assert answer.HasField("submit_time")
    assert answer.start_time.ToJsonString() == started_at
    assert not answer.HasField("finish_time")


async def test_the_video_is_shown_when_it_is_paid_and_not_before(service: Service) -> None:
    archiving = await service.replica.archiving("job")
    committing = await service.replica.tell(archiving, OutputStored("job", OUTPUT))

    before = await service.get(committing.generation_id)
    await service.replica.tell(committing, Committed())
    after = await service.get(committing.generation_id)

    assert (before.status, before.video_uri) == (Status.PROCESSING, "")
    assert before.charged_credits == 0
    assert (after.status, after.stage) == (Status.COMPLETED, Stage.STAGE_COMPLETED)
    assert after.video_uri == f"https://videos.example/{OUTPUT.key}"
    assert (after.cost_credits, after.charged_credits, after.progress_percent) == (10, 10, 100)
    assert after.HasField("finish_time")
    assert after.version == before.version + 1


async def test_a_failure_is_told_when_the_credits_are_back_and_not_before(service: Service) -> None:
    running = await service.replica.running("job")
    seen = PredictionSeen(said("job", "failed", error="out of memory"))
    refunding = await service.replica.tell(running, seen)

    before = await service.get(running.generation_id)
    await service.replica.tell(refunding, Refunded())
    after = await service.get(running.generation_id)

    assert (before.status, before.HasField("error")) == (Status.PROCESSING, False)
    assert (after.status, after.charged_credits) == (Status.FAILED, 0)
    assert (after.error.code, after.error.message) == (Code.MODEL_FAILED, "out of memory")


async def test_a_deadline_that_has_passed_is_told(service: Service) -> None:
    request = generation_pb2.GetGenerationRequest(user_id=USER, generation_id=str(uuid.uuid4()))
    late = service.stub.GetGeneration(request, timeout=0.01)

    assert await late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
