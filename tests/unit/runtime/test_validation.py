"""Requests are judged by the annotations of their fields, and every bad field is named."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message import Message
from reelworks.credits.v1 import credits_pb2
from reelworks.generation.v1 import generation_pb2

from services.runtime.errors import FieldViolation, InvalidRequest
from services.runtime.validation import Validator


def violations(message: Message, validator: Validator | None = None) -> dict[str, str]:
    """Returns the rule that each bad field of a message breaks."""
    try:
        (validator or Validator()).validate(message)
    except InvalidRequest as error:
        return {violation.field: violation.rule for violation in error.violations}
    return {}


def test_a_good_request_passes() -> None:
    assert not violations(
        credits_pb2.ReserveRequest(user_id="ada", reservation_id="r-1", credits=20)
    )


def test_everything_required_that_is_missing_is_named() -> None:
    assert violations(credits_pb2.AddCreditsRequest()) == {
        "user_id": "must be set",
        "credits": "must be set, not 0",
        "type": "must be set",
        "request_id": "must be set",
    }


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("user_id", ["a", "A-z_09", "x" * 64], ["a b", "x" * 65, "ü", "a\n", "a/b"]),
        ("reservation_id", ["r", "0192f5-x"], ["a:b", "x" * 65]),
    ],
)
def test_ids_have_one_form(field: str, good: list[str], bad: list[str]) -> None:
    fields: dict[str, Any] = {"user_id": "ada", "reservation_id": "r"}

    for value in good:
        assert not violations(credits_pb2.RefundRequest(**fields | {field: value}))
    for value in bad:
        assert violations(credits_pb2.RefundRequest(**fields | {field: value})).keys() == {field}


def test_a_generation_id_is_a_uuid_in_lower_case() -> None:
    good = "01926d3c-7f1a-7abc-8def-0123456789ab"

    assert not violations(generation_pb2.GetGenerationRequest(user_id="ada", generation_id=good))
    for bad in (good.upper(), good.replace("-", ""), "{" + good + "}", good + "\n"):
        request = generation_pb2.GetGenerationRequest(user_id="ada", generation_id=bad)
        assert violations(request).keys() == {"generation_id"}


def test_elements_of_lists_are_named_by_their_place() -> None:
    request = generation_pb2.WatchGenerationsRequest(user_id="ada", generation_ids=["x", "y"])

    assert violations(request).keys() == {"generation_ids[0]", "generation_ids[1]"}


@pytest.mark.parametrize(
    ("size", "accepted"), [(0, True), (1000, True), (1001, False), (-1, False)]
)
def test_pages_have_a_size_limit(size: int, accepted: bool) -> None:
    request = credits_pb2.ListTransactionsRequest(user_id="ada", page_size=size)

    assert (violations(request) == {}) is accepted


def test_what_a_service_checks_is_named_together_with_the_annotations_once_a_field() -> None:
    def check(request: credits_pb2.ReserveRequest) -> Iterator[FieldViolation]:
        yield FieldViolation("user_id", "must not be said twice")
        yield FieldViolation("credits", f"must be even, not {request.credits}")

    validator = Validator({"reelworks.credits.v1.ReserveRequest": check})

    found = violations(credits_pb2.ReserveRequest(reservation_id="r", credits=3), validator)

    assert found == {"user_id": "must be set", "credits": "must be even, not 3"}


def test_nested_messages_are_judged_and_foreign_ones_left_alone() -> None:
    nested = credits_pb2.AddCreditsResponse()
    nested.transaction.user_id = "a b"
    nested.transaction.create_time.seconds = -1

    assert violations(nested).keys() == {"transaction.user_id"}
