"""CreateGeneration: what it does, what a repetition does, and what credits say."""

import asyncio
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from reelworks.generation.v1 import generation_pb2

from services.generation import tables
from services.generation.state import Stage as Stages
from services.runtime.errors import (
    AlreadyExists,
    NotFound,
    PreconditionFailed,
    ServiceError,
    Unavailable,
)
from tests.contract.generation.harness import (
    Kind,
    Service,
    Stage,
    Status,
    lasting,
    refusal,
    violations,
    wanted,
)
from tests.integration.generation.harness import (
    PROMPT,
    REQUEST,
    USER,
    attempt_of,
    eventually,
    generation_in,
)

BOTH = pytest.mark.parametrize("backend", ["sqlite", "postgresql"])


@BOTH
async def test_a_generation_is_queued_and_its_price_reserved(service: Service) -> None:
    request = wanted(prompt=f"  {PROMPT}\n", negative_prompt="rain", aspect_ratio="9:16", seed=0)

    created = await service.call("CreateGeneration", **request)

    assert (created.status, created.stage) == (Status.QUEUED, Stage.STAGE_READY)
    assert (created.user_id, created.generation_id) == (USER, request["generation_id"])
    assert (created.kind, created.model, created.resolution) == (
        Kind.TEXT_TO_VIDEO,
        "t2v-14B",
        "480p",
    )
    assert (created.prompt, created.negative_prompt) == (PROMPT, "rain")
    assert (created.aspect_ratio, created.HasField("seed"), created.seed) == ("9:16", True, 0)
    assert (created.cost_credits, created.charged_credits) == (10, 0)
    assert (created.job_id, created.attempt, created.video_uri) == ("", 0, "")
    assert not created.HasField("error")
    assert not created.HasField("submit_time")
    assert created.create_time.ToDatetime() <= created.update_time.ToDatetime()
    assert lasting(await service.get(created.generation_id)) == lasting(created)
    assert await service.credits.balance(USER) == (90, 10)


async def test_the_price_is_that_of_the_resolution(service: Service) -> None:
    created = await service.create(resolution="720p")

    assert (created.cost_credits, created.HasField("seed")) == (20, False)
    assert await service.credits.balance(USER) == (80, 20)


@BOTH
async def test_the_same_call_again_answers_the_same_and_reserves_once(service: Service) -> None:
    request = wanted()

    at_once = await asyncio.gather(
        *(service.call("CreateGeneration", **request) for _ in range(20))
    )
    later = await service.call("CreateGeneration", **request)

    assert [answer.generation_id for answer in at_once] == [later.generation_id] * 20
    assert {answer.status for answer in at_once} == {Status.QUEUED}
    assert later == await service.get(later.generation_id)
    assert await service.credits.balance(USER) == (90, 10)
    assert len(await service.replica.rows(tables.generations)) == 1


async def test_a_repetition_answers_the_generation_as_it_is_now(service: Service) -> None:
    request = wanted()
    await service.call("CreateGeneration", **request)
    ((claimed, _),) = await service.replica.claims.claim_ready(1, attempt_of)

    again = await service.call("CreateGeneration", **request)

    assert (again.stage, again.attempt) == (Stage.STAGE_SUBMITTING, 1)
    assert again.version == claimed.version


async def test_an_id_that_was_used_for_something_else_is_refused(service: Service) -> None:
    request = wanted(seed=5)
    before = await service.call("CreateGeneration", **request)
    image = {"kind": Kind.IMAGE_TO_VIDEO, "model": "i2v-14B", "image_uri": "https://a.example/b"}
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"prompt": "a blue fox running through fresh snow"}, "prompt", PROMPT),
        ({"resolution": "720p"}, "resolution", "480p"),
        ({"model": "t2v-1.3B"}, "model", "t2v-14B"),
        (image, "kind", "TEXT_TO_VIDEO"),
        ({"negative_prompt": "rain"}, "negative_prompt", ""),
        ({"aspect_ratio": "16:9"}, "aspect_ratio", ""),
        ({"seed": 6}, "seed", "5"),
        ({"seed": None}, "seed", "5"),
    ]

    for changes, field, was in cases:
        call = service.call("CreateGeneration", **request | changes)
        assert await refusal(AlreadyExists, call) == (
            "GENERATION_ID_REUSED",
            {"field": field, "was": was},
        )

    assert await service.get(before.generation_id) == before
    assert await service.credits.balance(USER) == (90, 10)


async def test_what_was_accepted_is_answered_although_its_model_is_no_longer_offered(
    service: Service,
) -> None:
    # A row of an earlier release, whose catalog had a model more.
    request = replace(REQUEST, model="t2v-old")
    accepted = generation_in(Stages.RUNNING, request=request)
    await service.replica.insert(accepted)
    fields = {"generation_id": accepted.generation_id, "model": "t2v-old"}

    answer = await service.create(**fields, prompt=request.prompt, resolution=request.resolution)
    refused = await violations(service.create(model="t2v-old"))

    assert answer.generation_id == accepted.generation_id
    assert refused[0] == "MODEL_NOT_FOUND"


async def test_another_users_id_is_taken_and_nothing_is_told_about_it(service: Service) -> None:
    request = wanted()
    await service.call("CreateGeneration", **request)
    await service.credits.open("bob")

    answer = await refusal(
        AlreadyExists, service.call("CreateGeneration", **request | {"user_id": "bob"})
    )

    assert answer == ("GENERATION_ID_REUSED", {})
    assert await service.credits.balance("bob") == (100, 0)


@BOTH
async def test_too_few_credits_are_told_at_once_and_remembered(service: Service) -> None:
    await service.credits.add(USER, -95)
    request = wanted()

    first = await refusal(PreconditionFailed, service.call("CreateGeneration", **request))
    await service.credits.add(USER, 95)
    second = await refusal(PreconditionFailed, service.call("CreateGeneration", **request))

    assert first == second == ("INSUFFICIENT_CREDITS", {"required": "10", "available": "5"})
    kept = await service.get(request["generation_id"])
    assert (kept.status, kept.stage) == (Status.FAILED, Stage.STAGE_REJECTED)
    assert kept.error.code == generation_pb2.Generation.Error.INSUFFICIENT_CREDITS
    assert kept.error.message
    assert kept.HasField("finish_time")
    assert not (await service.call("ListGenerations", user_id=USER)).generations
    assert await service.credits.balance(USER) == (100, 0)
    assert (await service.create()).status == Status.QUEUED


async def test_a_user_without_an_account_is_told_so_and_it_is_remembered(service: Service) -> None:
    request = wanted(user_id="bob")

    first = await refusal(PreconditionFailed, service.call("CreateGeneration", **request))
    await service.credits.open("bob")
    second = await refusal(PreconditionFailed, service.call("CreateGeneration", **request))

    assert first == second == ("ACCOUNT_NOT_FOUND", {"user_id": "bob"})
    kept = await service.get(request["generation_id"], user_id="bob")
    assert kept.error.code == generation_pb2.Generation.Error.ACCOUNT_NOT_FOUND
    assert await service.credits.balance("bob") == (100, 0)


async def test_while_credits_is_away_the_call_can_be_repeated_until_it_is_back(
    service: Service,
) -> None:
    request = wanted()
    await service.credits.stop()

    away = await refusal(Unavailable, service.call("CreateGeneration", **request))
    waiting = await service.get(request["generation_id"])
    await service.credits.start()

    async def created() -> Any:
        try:
            return await service.call("CreateGeneration", **request)
        except Unavailable:
            return None

    answer = await eventually(created)

    assert away == ("CREDITS_UNAVAILABLE", {"generation_id": request["generation_id"]})
    assert (waiting.status, waiting.stage) == (Status.QUEUED, Stage.STAGE_RESERVING)
    assert (answer.status, answer.stage) == (Status.QUEUED, Stage.STAGE_READY)
    assert await service.credits.moves(USER, answer.generation_id) == [("RESERVATION", -10)]


@BOTH
async def test_what_a_caller_began_is_finished_although_it_left(service: Service) -> None:
    request = wanted()
    generation_id = request["generation_id"]
    with service.credits.standing_still():
        left = service.stub.CreateGeneration(generation_pb2.CreateGenerationRequest(**request))
        await eventually(lambda: _exists(service, generation_id))
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        assert (await service.get(generation_id)).stage == Stage.STAGE_RESERVING

    async def is_ready() -> bool:
        stage: int = (await service.get(generation_id)).stage
        return stage == Stage.STAGE_READY

    assert await eventually(is_ready)
    assert await service.credits.moves(USER, generation_id) == [("RESERVATION", -10)]


async def test_a_deadline_passes_on_to_the_reservation_and_the_call_can_be_repeated(
    service: Service,
) -> None:
    request = wanted()
    with service.credits.standing_still():
        late = service.stub.CreateGeneration(
            generation_pb2.CreateGenerationRequest(**request), timeout=0.5
        )
        code = await late.code()

    answer = await service.call("CreateGeneration", **request)

    # The reservation gives up a little earlier than the caller, so either answer may be first.
    assert code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    assert answer.stage == Stage.STAGE_READY
    assert await service.credits.moves(USER, answer.generation_id) == [("RESERVATION", -10)]


async def test_a_call_without_time_is_refused_and_writes_nothing(service: Service) -> None:
    request = wanted()
    late = service.stub.CreateGeneration(
        generation_pb2.CreateGenerationRequest(**request), timeout=0.01
    )

    assert await late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(NotFound):
        await service.get(request["generation_id"])
    assert await service.credits.balance(USER) == (100, 0)


async def test_an_error_names_its_domain(service: Service) -> None:
    created = await service.create()
    request = wanted(generation_id=created.generation_id, seed=1)

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await service.stub.CreateGeneration(generation_pb2.CreateGenerationRequest(**request))

    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(raised.value)  # type: ignore[arg-type]
    assert status is not None
    assert status.details[0].Unpack(info)
    assert raised.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert (info.domain, info.reason) == ("generation.reelworks.dev", "GENERATION_ID_REUSED")
    assert info.reason in generation_pb2.ErrorReason.DESCRIPTOR.values_by_name


async def _exists(service: Service, generation_id: str) -> bool:
    try:
        await service.get(generation_id)
    except ServiceError:
        return False
    return True
