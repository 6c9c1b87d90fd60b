"""Reads requests of the contract, and says what is wrong with those that cannot be answered.

What a request must hold is declared in the contract; here is what annotations cannot express.
"""

import unicodedata
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC
from functools import partial
from typing import Any, TypeVar

from reelworks.generation.v1 import generation_pb2, prediction_event_pb2

from services.generation.catalog import Offer
from services.generation.quotes import TOKEN_CHARACTERS_MAX
from services.generation.state import Kind, Request, Stage, Status
from services.runtime.errors import FieldViolation
from services.runtime.validation import Check

__all__ = [
    "checks",
    "kind_of",
    "late_checks",
    "request_of",
    "request_violations",
    "stage_of",
    "status_filter",
]

ATTEMPT_MAX = 999
PAYLOAD_BYTES_MAX = 8 * 1024 * 1024
DELETED_MAX = 100
QUERY_CHARACTERS_MAX = 100

_Kinds = generation_pb2.Generation.Kind
_Statuses = generation_pb2.Generation.Status
_Word = TypeVar("_Word", Kind, Status, Stage)
_Wanted = generation_pb2.CreateGenerationRequest | generation_pb2.QuoteGenerationRequest


def request_of(message: _Wanted) -> Request:
    """Returns what a checked message asks for."""
    kind = kind_of(message.kind)
    assert kind is not None, "the kind was checked"
    return _request(message, kind)


def kind_of(value: _Kinds) -> Kind | None:
    """Returns the kind of a message; None if it is unspecified or not known."""
    return _word(Kind, _Kinds.Name, value)


def status_filter(value: _Statuses) -> Status | None:
    """Returns the status of a message; None if it is unspecified or not known."""
    return _word(Status, _Statuses.Name, value)


def stage_of(value: generation_pb2.Generation.Stage) -> Stage | None:
    """Returns the stage of a message; None if it is unspecified or not known."""
    name = generation_pb2.Generation.Stage.Name
    return _word(Stage, lambda number: name(number).removeprefix("STAGE_"), value)


def checks() -> Mapping[str, Check]:
    """Returns what is checked of each request at once, by full name of its message."""
    return {
        _name(generation_pb2.CreateGenerationRequest): _check_create,
        _name(generation_pb2.QuoteGenerationRequest): _check_kind,
        _name(generation_pb2.ListGenerationsRequest): _check_list,
        _name(generation_pb2.WatchGenerationsRequest): _check_watch,
        _name(generation_pb2.DeleteGenerationsRequest): _check_delete,
        _name(generation_pb2.ResumeGenerationRequest): _check_resume,
        _name(prediction_event_pb2.DeliverPredictionEventRequest): _check_deliver,
    }


def late_checks(offer: Offer) -> Mapping[str, Check]:
    """Returns what is checked once an id was found to be new, by full name of the message."""
    check = partial(_check_catalog, offer)
    return {
        _name(generation_pb2.CreateGenerationRequest): check,
        _name(generation_pb2.QuoteGenerationRequest): check,
    }


def _check_catalog(offer: Offer, message: _Wanted) -> Iterator[FieldViolation]:
    """Yields what the catalog has against a request."""
    kind = kind_of(message.kind)
    # Without a kind the rest is judged all the same, since every bad field is named at once.
    for violation in request_violations(offer, _request(message, kind or Kind.TEXT_TO_VIDEO)):
        if kind is not None or violation.field not in ("kind", "image_uri"):
            yield violation


def request_violations(offer: Offer, wanted: Request) -> Iterator[FieldViolation]:
    """Yields what the catalog has against making a video."""
    for problem in offer.catalog.problems(wanted):
        yield FieldViolation(problem.field, problem.rule, problem.reason, dict(problem.metadata))


def _request(message: _Wanted, kind: Kind) -> Request:
    return Request(
        kind=kind,
        model=message.model,
        resolution=message.resolution,
        prompt=message.prompt.strip(),
        negative_prompt=message.negative_prompt.strip(),
        image_uri=message.image_uri,
        aspect_ratio=message.aspect_ratio,
        seed=message.seed if message.HasField("seed") else None,
    )


def _check_create(message: generation_pb2.CreateGenerationRequest) -> Iterator[FieldViolation]:
    yield from _check_kind(message)
    if len(message.quote_token) > TOKEN_CHARACTERS_MAX:
        yield FieldViolation("quote_token", f"must have at most {TOKEN_CHARACTERS_MAX} characters")


def _check_kind(message: _Wanted) -> Iterator[FieldViolation]:
    if kind_of(message.kind) is None:
        yield FieldViolation("kind", "must be TEXT_TO_VIDEO or IMAGE_TO_VIDEO")


def _check_list(message: generation_pb2.ListGenerationsRequest) -> Iterator[FieldViolation]:
    if message.status and status_filter(message.status) is None:
        yield FieldViolation("status", "must be a status that this service knows")
    if len(message.query) > QUERY_CHARACTERS_MAX:
        yield FieldViolation("query", f"must have at most {QUERY_CHARACTERS_MAX} characters")
    elif any(unicodedata.category(character) == "Cc" for character in message.query):
        yield FieldViolation("query", "must not contain control characters")
    if message.kind and kind_of(message.kind) is None:
        yield FieldViolation("kind", "must be TEXT_TO_VIDEO or IMAGE_TO_VIDEO")


def _check_watch(message: generation_pb2.WatchGenerationsRequest) -> Iterator[FieldViolation]:
    if message.HasField("updated_after"):
        yield from _check_time("updated_after", message.updated_after)


def _check_deliver(
    message: prediction_event_pb2.DeliverPredictionEventRequest,
) -> Iterator[FieldViolation]:
    if message.generation_id and not 1 <= message.attempt <= ATTEMPT_MAX:
        yield FieldViolation("attempt", f"must be between 1 and {ATTEMPT_MAX}")
    if not message.generation_id and message.attempt:
        yield FieldViolation("attempt", "must be 0 without a generation_id")
    if len(message.payload) > PAYLOAD_BYTES_MAX:
        yield FieldViolation("payload", "must have at most 8 MiB")
    yield from _check_time("received_time", message.received_time)


def _check_time(field: str, value: Any) -> Iterator[FieldViolation]:
    try:
        value.ToDatetime(UTC)
    except (ValueError, OverflowError):
        yield FieldViolation(field, "must be a time between the years 1 and 9999")


def _check_delete(message: generation_pb2.DeleteGenerationsRequest) -> Iterator[FieldViolation]:
    if len(message.generation_ids) > DELETED_MAX:
        yield FieldViolation("generation_ids", f"must have at most {DELETED_MAX} elements")


def _check_resume(message: generation_pb2.ResumeGenerationRequest) -> Iterator[FieldViolation]:
    if message.stage and stage_of(message.stage) is None:
        yield FieldViolation("stage", "must be a stage that this service knows")


def _word(words: type[_Word], name: Callable[[Any], str], value: int) -> _Word | None:
    try:
        return words(name(value))
    except ValueError:
        return None


def _name(message: Any) -> str:
    name: str = message.DESCRIPTOR.full_name
    return name
