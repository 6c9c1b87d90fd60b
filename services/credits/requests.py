"""Turns the requests of the contract into commands, and says what is wrong with those that cannot.

What a request must hold is declared in the contract; here are the ranges and the lengths, which
annotations cannot express.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from reelworks.credits.v1 import credits_pb2

from services.credits.commands import (
    AddCredits,
    AddedType,
    Commit,
    Refund,
    Reimburse,
    Reserve,
)
from services.credits.pages import reservation_place_in, version_in
from services.credits.records import CREDITS_MAX, ReservationState, TransactionType
from services.runtime.errors import FieldViolation, InvalidRequest
from services.runtime.validation import Check

__all__ = [
    "CHECKS",
    "created_before_of",
    "state_filter",
    "to_add_credits",
    "to_commit",
    "to_refund",
    "to_reimburse",
    "to_reserve",
]

DESCRIPTION_CHARACTERS_MAX = 200
TTL_DEFAULT = timedelta(days=7)
TTL_MIN_NS = 10**9
TTL_MAX_NS = 30 * 86_400 * 10**9

_Type = credits_pb2.Transaction.Type
_ADDED_TYPES: Mapping[int, AddedType] = {
    _Type.PURCHASE: TransactionType.PURCHASE,
    _Type.BONUS: TransactionType.BONUS,
    _Type.ADJUSTMENT: TransactionType.ADJUSTMENT,
}
_State = credits_pb2.Reservation.State
_LISTED_STATES: Mapping[int, ReservationState | None] = {
    _State.STATE_UNSPECIFIED: None,
    **{_State.Value(state.value): state for state in ReservationState},
}


def to_add_credits(request: credits_pb2.AddCreditsRequest) -> AddCredits:
    """Returns the command of a checked request."""
    return AddCredits(
        user_id=request.user_id,
        request_id=request.request_id,
        type=_ADDED_TYPES[request.type],
        credits=request.credits,
        description=request.description,
    )


def to_reserve(request: credits_pb2.ReserveRequest) -> Reserve:
    """Returns the command of a checked request."""
    ttl = timedelta(seconds=request.ttl.seconds, microseconds=request.ttl.nanos // 1000)
    return Reserve(
        user_id=request.user_id,
        reservation_id=request.reservation_id,
        credits=request.credits,
        ttl=ttl if request.HasField("ttl") else TTL_DEFAULT,
        description=request.description,
    )


def to_commit(request: credits_pb2.CommitRequest) -> Commit:
    """Returns the command of a checked request."""
    return Commit(
        user_id=request.user_id,
        reservation_id=request.reservation_id,
        credits=request.credits if request.HasField("credits") else None,
    )


def to_refund(request: credits_pb2.RefundRequest) -> Refund:
    """Returns the command of a checked request."""
    return Refund(
        user_id=request.user_id, reservation_id=request.reservation_id, reason=request.reason
    )


def to_reimburse(request: credits_pb2.ReimburseRequest) -> Reimburse:
    """Returns the command of a checked request."""
    return Reimburse(
        user_id=request.user_id,
        reservation_id=request.reservation_id,
        request_id=request.request_id,
        credits=request.credits,
        reason=request.reason,
    )


def state_filter(request: credits_pb2.ListReservationsRequest) -> ReservationState | None:
    """Returns the state that a checked request asks for; None for all."""
    return _LISTED_STATES[request.state]


def created_before_of(request: credits_pb2.ListReservationsRequest) -> datetime | None:
    """Returns the time that a checked request asks for older reservations than; None for all."""
    if not request.HasField("created_before"):
        return None
    return request.created_before.ToDatetime(UTC)


def _check_add_credits(request: credits_pb2.AddCreditsRequest) -> Iterator[FieldViolation]:
    if request.type not in _ADDED_TYPES:
        yield FieldViolation("type", "must be PURCHASE, BONUS or ADJUSTMENT")
    if request.type == _Type.ADJUSTMENT:
        if abs(request.credits) > CREDITS_MAX:
            yield FieldViolation("credits", f"must be between -{CREDITS_MAX} and {CREDITS_MAX}")
    else:
        yield from _check_credits(request.credits, 1)
    yield from _check_text("description", request.description)


def _check_reserve(request: credits_pb2.ReserveRequest) -> Iterator[FieldViolation]:
    yield from _check_credits(request.credits, 1)
    if request.HasField("ttl"):
        ttl_ns = request.ttl.seconds * 10**9 + request.ttl.nanos
        # Seconds and nanoseconds of different signs are no duration, whatever they add up to.
        if not (0 <= request.ttl.nanos < 10**9 and TTL_MIN_NS <= ttl_ns <= TTL_MAX_NS):
            yield FieldViolation("ttl", "must be a duration between 1 second and 30 days")
    yield from _check_text("description", request.description)


def _check_commit(request: credits_pb2.CommitRequest) -> Iterator[FieldViolation]:
    yield from _check_credits(request.credits, 0)


def _check_refund(request: credits_pb2.RefundRequest) -> Iterator[FieldViolation]:
    yield from _check_text("reason", request.reason)


def _check_reimburse(request: credits_pb2.ReimburseRequest) -> Iterator[FieldViolation]:
    yield from _check_credits(request.credits, 1)
    yield from _check_text("reason", request.reason)


def _check_list_transactions(
    request: credits_pb2.ListTransactionsRequest,
) -> Iterator[FieldViolation]:
    if request.after_version < 0:
        yield FieldViolation("after_version", "must be 0 or more")
    yield from _check_token(version_in, request)


def _check_list_reservations(
    request: credits_pb2.ListReservationsRequest,
) -> Iterator[FieldViolation]:
    if request.state not in _LISTED_STATES:
        yield FieldViolation("state", "must be a state that this service knows")
    try:
        created_before_of(request)
    except (ValueError, OverflowError):
        yield FieldViolation("created_before", "must be a time between the years 1 and 9999")
    yield from _check_token(reservation_place_in, request)


def _check_token(place_in: Callable[[Any], object], request: Any) -> Iterator[FieldViolation]:
    try:
        place_in(request)
    except InvalidRequest as error:
        yield from error.violations


def _check_credits(number: int, least: int) -> Iterator[FieldViolation]:
    if not least <= number <= CREDITS_MAX:
        yield FieldViolation("credits", f"must be between {least} and {CREDITS_MAX}")


def _check_text(field: str, text: str) -> Iterator[FieldViolation]:
    # PostgreSQL keeps no NUL in texts.
    if len(text) > DESCRIPTION_CHARACTERS_MAX or "\0" in text:
        yield FieldViolation(
            field, f"must be at most {DESCRIPTION_CHARACTERS_MAX} characters, none of them NUL"
        )


CHECKS: Mapping[str, Check] = {
    request.DESCRIPTOR.full_name: check
    for request, check in (
        (credits_pb2.AddCreditsRequest, _check_add_credits),
        (credits_pb2.ReserveRequest, _check_reserve),
        (credits_pb2.CommitRequest, _check_commit),
        (credits_pb2.RefundRequest, _check_refund),
        (credits_pb2.ReimburseRequest, _check_reimburse),
        (credits_pb2.ListReservationsRequest, _check_list_reservations),
        (credits_pb2.ListTransactionsRequest, _check_list_transactions),
    )
}
"""What is checked of requests beyond their annotations, by full name of the message."""
