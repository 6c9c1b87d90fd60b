"""What requests are read as, and what is wrong with them."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from reelworks.generation.v1 import generation_pb2, prediction_event_pb2

from services.generation.catalog import Offer, load_catalog
from services.generation.history import Cursor
from services.generation.requests import (
    checks,
    kind_of,
    late_checks,
    request_of,
    status_filter,
)
from services.generation.state import Kind, Request, Status
from services.runtime.errors import FieldViolation, InvalidRequest
from services.runtime.validation import Validator

GENERATION_ID = "4b7f6a52-5b05-4e1f-9d9c-2f60ff0c5a11"
PROMPT = "a red fox runs through fresh snow"
CURSOR = Cursor(datetime(2026, 7, 1, 12, 0, 0, 123_457, tzinfo=UTC), GENERATION_ID)
CREATE = generation_pb2.CreateGenerationRequest.DESCRIPTOR.full_name
Kinds = generation_pb2.Generation.Kind
Statuses = generation_pb2.Generation.Status


@pytest.fixture(scope="module")
def validator() -> Validator:
    early, late = checks(), late_checks(Offer(load_catalog()))

    def check_all(message: Message) -> Iterator[FieldViolation]:
        """Both, as for an id that is new."""
        for check in (early, late):
            yield from check[message.DESCRIPTOR.full_name](message)

    return Validator({**early, CREATE: check_all})


def create(**fields: object) -> generation_pb2.CreateGenerationRequest:
    good: dict[str, object] = {
        "user_id": "u",
        "generation_id": GENERATION_ID,
        "kind": Kinds.TEXT_TO_VIDEO,
        "model": "t2v-14B",
        "resolution": "720p",
        "prompt": PROMPT,
    }
    return generation_pb2.CreateGenerationRequest(**(good | fields))  # type: ignore[arg-type]


def listing(**fields: object) -> generation_pb2.ListGenerationsRequest:
    good: dict[str, object] = {"user_id": "u"}
    return generation_pb2.ListGenerationsRequest(**(good | fields))  # type: ignore[arg-type]


def delivery(**fields: object) -> prediction_event_pb2.DeliverPredictionEventRequest:
    good: dict[str, object] = {"webhook_id": "msg_1", "received_time": Timestamp(seconds=1)}
    return prediction_event_pb2.DeliverPredictionEventRequest(**(good | fields))  # type: ignore[arg-type]


def bad_fields(validator: Validator, message: Message) -> set[str]:
    try:
        validator.validate(message)
    except InvalidRequest as error:
        found = [violation.field for violation in error.violations]
        assert len(found) == len(set(found)), "one rule a field"
        return set(found)
    return set()


def test_a_message_is_read_with_white_space_stripped_and_an_absent_seed_absent() -> None:
    plain = request_of(create(prompt=f"  {PROMPT}\n"))
    full = request_of(
        create(
            kind=Kinds.IMAGE_TO_VIDEO,
            negative_prompt=" blurry ",
            image_uri="https://x/y",
            aspect_ratio="9:16",
            seed=0,
        )
    )

    assert plain == Request(Kind.TEXT_TO_VIDEO, "t2v-14B", "720p", PROMPT)
    assert full == Request(
        Kind.IMAGE_TO_VIDEO, "t2v-14B", "720p", PROMPT, "blurry", "https://x/y", "9:16", 0
    )


def test_words_of_the_contract_are_ours_and_others_are_none() -> None:
    assert {kind_of(create(kind=kind.value).kind) for kind in Kind} == set(Kind)
    assert {status_filter(listing(status=s.value).status) for s in Status} == set(Status)
    for unknown in (0, 99, -1):
        assert kind_of(listing(kind=unknown).kind) is None
        assert status_filter(listing(status=unknown).status) is None


def test_a_good_create_passes(validator: Validator) -> None:
    assert bad_fields(validator, create()) == set()
    assert bad_fields(validator, create(prompt=" " * 500 + PROMPT)) == set()


def test_every_bad_field_of_a_create_is_named_at_once(validator: Validator) -> None:
    message = create(
        user_id="no spaces",
        generation_id=GENERATION_ID.upper(),
        model="t2v-1.3B",
        resolution="480p",
        prompt=" short ",
        negative_prompt="blurry",
        image_uri="http://x/y",
        aspect_ratio="4:3",
        seed=-1,
        quote_token="x" * 513,
    )

    assert bad_fields(validator, message) == {
        "quote_token",
        "user_id",
        "generation_id",
        "prompt",
        "negative_prompt",
        "image_uri",
        "aspect_ratio",
        "seed",
    }


@pytest.mark.parametrize("kind", [Kinds.KIND_UNSPECIFIED, 99])
def test_without_a_kind_the_rest_is_judged_all_the_same(validator: Validator, kind: int) -> None:
    assert bad_fields(validator, create(kind=kind, prompt="short")) == {"kind", "prompt"}


def test_an_empty_create_lacks_each_required_field(validator: Validator) -> None:
    required = {"user_id", "generation_id", "kind", "model", "resolution", "prompt"}

    assert bad_fields(validator, generation_pb2.CreateGenerationRequest()) == required


def test_the_only_violation_gives_the_error_its_reason_and_metadata(validator: Validator) -> None:
    with pytest.raises(InvalidRequest) as only:
        validator.validate(create(model="t2v-1.3B"))
    with pytest.raises(InvalidRequest) as several:
        validator.validate(create(model="t2v-1.3B", seed=-1))

    assert only.value.reason == "RESOLUTION_NOT_SUPPORTED"
    assert only.value.metadata == {"model": "t2v-1.3B", "resolution": "720p"}
    assert several.value.reason == "INVALID_FIELD"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (listing(), set()),
        (listing(status=Statuses.COMPLETED, kind=Kinds.IMAGE_TO_VIDEO, page_size=1000), set()),
        (listing(status=99, kind=99, page_size=1001), {"status", "kind", "page_size"}),
        (listing(user_id="", page_size=-1), {"user_id", "page_size"}),
        (listing(query="é" * 100), set()),
        (listing(query="x" * 101, kind=99), {"query", "kind"}),
        (listing(query="\x1b[2J"), {"query"}),
        (generation_pb2.WatchGenerationsRequest(user_id="u"), set()),
        (
            generation_pb2.WatchGenerationsRequest(
                user_id="u", updated_after=Timestamp(seconds=2**60)
            ),
            {"updated_after"},
        ),
        (
            generation_pb2.WatchGenerationsRequest(
                user_id="u", generation_ids=[GENERATION_ID, "x"]
            ),
            {"generation_ids[1]"},
        ),
        (delivery(), set()),
        (delivery(generation_id=GENERATION_ID, attempt=999), set()),
        (delivery(generation_id=GENERATION_ID), {"attempt"}),
        (delivery(generation_id=GENERATION_ID, attempt=1000), {"attempt"}),
        (delivery(generation_id=GENERATION_ID, attempt=-1), {"attempt"}),
        (delivery(attempt=1), {"attempt"}),
        (
            delivery(webhook_id="", received_time=Timestamp(seconds=-(2**60))),
            {"webhook_id", "received_time"},
        ),
    ],
    ids=lambda value: repr(sorted(value) if isinstance(value, set) else value),
)
def test_every_bad_field_of_the_other_requests_is_named_at_once(
    validator: Validator, message: Message, expected: set[str]
) -> None:
    assert bad_fields(validator, message) == expected
