"""GetGeneration."""

import uuid
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from reelworks.generation.v1 import generation_pb2

from services.generation import tables
from services.generation.events import (
    Committed,
    OutputStored,
    PredictionSeen,
    Refunded,
)
from services.generation.state import Stage as Stages
from services.runtime.errors import NotFound
from tests.contract.generation.harness import Service, Stage, Status, lasting, refusal, violations
from tests.integration.generation.harness import OUTPUT, USER, generation_in, said

Code = generation_pb2.Generation.Error.Code


async def test_what_was_created_is_answered(service: Service) -> None:
    created = await service.create()

    assert lasting(await service.get(created.generation_id)) == lasting(created)


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


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
async def test_a_waiting_one_shows_its_place_and_when_it_will_be_there(service: Service) -> None:
    now = datetime.now(UTC)
    first, second = (
        generation_in(Stages.READY, created_at=now + timedelta(seconds=number))
        for number in range(2)
    )
    await service.replica.insert(second, first)

    answers = [await service.get(one.generation_id) for one in (first, second)]

    assert [answer.queue_position for answer in answers] == [1, 2]
    for answer in answers:
        likely, latest = (
            moment.ToDatetime(UTC) for moment in (answer.eta.likely_time, answer.eta.latest_time)
        )
        # The smallest model takes 20 s, says the catalog.
        assert timedelta(seconds=20) < likely - now < latest - now < timedelta(seconds=90)


async def test_what_the_provider_has_waits_in_no_queue_of_ours(service: Service) -> None:
    running = await service.replica.running("job")
    canceling = generation_in(Stages.CANCELING)
    failed = generation_in(Stages.FAILED)
    await service.replica.insert(canceling, failed)

    answer, *others = [await service.get(one.generation_id) for one in (running, canceling, failed)]

    # Whether the provider has begun, its start tells.
    assert (answer.status, answer.HasField("start_time")) == (Status.PROCESSING, False)
    assert (answer.HasField("queue_position"), answer.HasField("eta")) == (False, True)
    for other in others:
        assert (other.HasField("queue_position"), other.HasField("eta")) == (False, False)


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
    seen = PredictionSeen(said("job", "failed", error="CUDA out of memory (code: E1001)"))
    refunding = await service.replica.tell(running, seen)

    before = await service.get(running.generation_id)
    await service.replica.tell(refunding, Refunded())
    after = await service.get(running.generation_id)

    assert (before.status, before.HasField("error")) == (Status.PROCESSING, False)
    assert (after.status, after.charged_credits) == (Status.FAILED, 0)
    assert after.error.code == Code.MODEL_FAILED
    assert after.error.message.startswith("The model ran out of memory.")
    (prediction,) = await service.replica.rows(tables.predictions)
    assert prediction["error"] == "CUDA out of memory (code: E1001)"


async def test_a_deadline_that_has_passed_is_told(service: Service) -> None:
    request = generation_pb2.GetGenerationRequest(user_id=USER, generation_id=str(uuid.uuid4()))
    late = service.stub.GetGeneration(request, timeout=0.01)

    assert await late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
