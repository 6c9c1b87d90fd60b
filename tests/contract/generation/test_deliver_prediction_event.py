"""PredictionEventService.DeliverPredictionEvent."""

import asyncio
import uuid
from typing import Any

import grpc
import pytest
from google.protobuf import timestamp_pb2
from reelworks.generation.v1 import prediction_event_pb2

from services.generation import tables
from services.generation.events import PredictionSeen, Refunded
from services.runtime.errors import InvalidRequest
from tests.contract.generation.harness import Service, Stage, violations
from tests.integration.generation.harness import SEED, body_of, said

Disposition = prediction_event_pb2.DeliverPredictionEventResponse.Disposition
RECEIVED = timestamp_pb2.Timestamp(seconds=1_777_777_777, nanos=123_456_000)


def event(payload: bytes, generation_id: str = "", **changes: Any) -> dict[str, Any]:
    """The fields of an event; proven if it names a generation."""
    return {
        "webhook_id": f"msg_{uuid.uuid4().hex}",
        "generation_id": generation_id,
        "attempt": 1 if generation_id else 0,
        "received_time": RECEIVED,
        "payload": payload,
    } | changes


async def disposition(service: Service, fields: dict[str, Any]) -> int:
    value: int = (await service.deliver(**fields)).disposition
    return value


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
async def test_an_event_is_applied_once_and_a_repetition_is_a_duplicate(service: Service) -> None:
    generation = await service.replica.submitting()
    fields = event(body_of("job", "succeeded", input={"seed": SEED}), generation.generation_id)

    answers = await asyncio.gather(*(disposition(service, fields) for _ in range(10)))
    later = await disposition(service, fields)

    assert sorted(answers) == [Disposition.APPLIED] + [Disposition.DUPLICATE] * 9
    assert later == Disposition.DUPLICATE
    answer = await service.get(generation.generation_id)
    assert (answer.stage, answer.job_id) == (Stage.STAGE_ARCHIVING, "job")
    (row,) = await service.replica.rows(tables.prediction_events)
    assert row["body"] == fields["payload"]
    assert row["received_at"].timestamp() == pytest.approx(1_777_777_777.123456)
    assert row["disposition"] == "APPLIED"


async def test_each_disposition_is_told(service: Service) -> None:
    running = await service.replica.running("running")
    failing = await service.replica.running("failed")
    seen = PredictionSeen(said("failed", "failed"))
    failed = await service.replica.tell(await service.replica.tell(failing, seen), Refunded())
    cases = [
        (event(body_of("running", "processing")), "APPLIED"),
        (event(body_of("failed", "succeeded"), failed.generation_id), "STALE"),
        (event(body_of("second"), running.generation_id), "ORPHAN"),
        (event(body_of("foreign", "succeeded")), "UNMATCHED"),
        (event(b"not a prediction", running.generation_id), "UNREADABLE"),
        (event(b""), "UNREADABLE"),
    ]

    for fields, expected in cases:
        assert Disposition.Name(await disposition(service, fields)) == expected
        assert await disposition(service, fields) == Disposition.DUPLICATE

    after = await service.get(failed.generation_id)
    assert (after.stage, after.charged_credits) == (Stage.STAGE_FAILED, 0)
    assert (await service.get(running.generation_id)).stage == Stage.STAGE_RUNNING


async def test_an_event_of_another_body_or_address_is_another_event(service: Service) -> None:
    generation = await service.replica.submitting()
    fields = event(body_of("job"), webhook_id="msg")

    unproven = await disposition(service, fields)
    proven = await disposition(
        service, fields | event(body_of("job"), generation.generation_id, webhook_id="msg")
    )
    ended = await disposition(service, fields | {"payload": body_of("job", "failed")})

    assert [Disposition.Name(one) for one in (unproven, proven, ended)] == [
        "UNMATCHED",
        "APPLIED",
        "APPLIED",
    ]


async def test_a_body_of_eight_mebibytes_is_taken(service: Service) -> None:
    start, end = b'{"id": "job", "status": "starting", "logs": "', b'"}'
    body = start + b"x" * ((8 << 20) - len(start + end)) + end

    assert await disposition(service, event(body)) == Disposition.UNMATCHED
    with pytest.raises(InvalidRequest):
        await disposition(service, event(body + b" "))


async def test_bad_fields_are_all_named_and_nothing_is_stored(service: Service) -> None:
    webhook_rule = "must be 1 to 256 visible ASCII characters"
    uuid_rule = "must be a UUID in lower case with hyphens"
    good = str(uuid.uuid4())
    cases: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({"webhook_id": ""}, {"webhook_id": "must be set"}),
        ({"webhook_id": "x" * 257}, {"webhook_id": webhook_rule}),
        ({"webhook_id": "a b"}, {"webhook_id": webhook_rule}),
        ({"received_time": None}, {"received_time": "must be set"}),
        (
            {"received_time": timestamp_pb2.Timestamp(seconds=2**60)},
            {"received_time": "must be a time between the years 1 and 9999"},
        ),
        ({"attempt": 1}, {"attempt": "must be 0 without a generation_id"}),
        (
            {"generation_id": good, "attempt": 0},
            {"attempt": "must be between 1 and 999"},
        ),
        (
            {"generation_id": good, "attempt": 1000},
            {"attempt": "must be between 1 and 999"},
        ),
        (
            {"webhook_id": "é", "generation_id": "fox", "attempt": -1, "received_time": None},
            {
                "webhook_id": webhook_rule,
                "generation_id": uuid_rule,
                "attempt": "must be between 1 and 999",
                "received_time": "must be set",
            },
        ),
    ]

    for changes, rules in cases:
        assert await violations(service.deliver(**event(body_of("job")) | changes)) == (
            "INVALID_FIELD",
            rules,
        )

    assert await service.replica.rows(tables.prediction_events) == []


async def test_a_call_without_time_is_refused_and_stores_nothing(service: Service) -> None:
    request = prediction_event_pb2.DeliverPredictionEventRequest(**event(body_of("job")))

    late = service.events.DeliverPredictionEvent(request, timeout=0.01)

    assert await late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await service.replica.rows(tables.prediction_events) == []
