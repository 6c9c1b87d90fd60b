"""Reads the requests of operators, and says what is wrong with those that cannot be answered.

What a request must hold is declared in the contract; here is what annotations cannot express.
"""

import struct
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from reelworks.webhook.v1 import webhook_pb2

from services.runtime.errors import FieldViolation, InvalidRequest
from services.runtime.pages import page_token, place_in
from services.runtime.validation import Check
from services.webhook.events import EventFilter, EventState

__all__ = ["CHECKS", "filter_of", "next_page_token", "place_of"]

REASON_CHARACTERS_MAX = 200
_NUMBER = struct.Struct(">q")
_State = webhook_pb2.Event.State
_STATES: Mapping[int, EventState | None] = {
    _State.STATE_UNSPECIFIED: None,
    **{_State.Value(state.value): state for state in EventState},
}


def filter_of(message: webhook_pb2.EventFilter) -> EventFilter:
    """Returns the filter of a checked request."""
    return EventFilter(
        sequences=tuple(map(int, message.event_ids)),
        webhook_ids=tuple(message.webhook_ids),
        generation_id=message.generation_id,
        state=_STATES[message.state],
        received_from=_moment(message, "received_from"),
        received_before=_moment(message, "received_before"),
    )


def next_page_token(request: webhook_pb2.ListEventsRequest, last: int) -> str:
    """Returns the token of the page behind the event numbered `last`."""
    return page_token(_list_name(request), _NUMBER.pack(last))


def place_of(request: webhook_pb2.ListEventsRequest) -> int | None:
    """Returns the number of the event that the page asked for follows; None for the first page.

    Raises InvalidRequest when the token was not given for this filter.
    """
    if not request.page_token:
        return None
    return place_in(request.page_token, _list_name(request), _number)


def _number(place: bytes) -> int:
    number: int
    (number,) = _NUMBER.unpack(place)
    return number


def _list_name(request: webhook_pb2.ListEventsRequest) -> str:
    return f"ListEvents|{request.filter.SerializeToString(deterministic=True).hex()}"


def _moment(message: webhook_pb2.EventFilter, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    moment: Timestamp = getattr(message, field)
    return moment.ToDatetime(UTC)


def _check_filter(message: webhook_pb2.EventFilter) -> Iterator[FieldViolation]:
    if message.state not in _STATES:
        yield FieldViolation("filter.state", "must be a state that this service knows")
    moments = {}
    for field in ("received_from", "received_before"):
        try:
            moments[field] = _moment(message, field)
        except (ValueError, OverflowError):
            yield FieldViolation(f"filter.{field}", "must be a time between the years 1 and 9999")
    begin, end = moments.get("received_from"), moments.get("received_before")
    if begin is not None and end is not None and begin >= end:
        yield FieldViolation("filter.received_before", "must be later than received_from")


def _check_list(request: webhook_pb2.ListEventsRequest) -> Iterator[FieldViolation]:
    yield from _check_filter(request.filter)
    try:
        place_of(request)
    except InvalidRequest as error:
        yield from error.violations


def _check_replay(request: webhook_pb2.ReplayEventsRequest) -> Iterator[FieldViolation]:
    # All of the inbox would be replayed by an oversight.
    if not request.filter.ByteSize():
        yield FieldViolation("filter", "must say which events")
    yield from _check_filter(request.filter)


def _check_drop(request: webhook_pb2.DropEventsRequest) -> Iterator[FieldViolation]:
    # PostgreSQL keeps no NUL in texts.
    if len(request.reason) > REASON_CHARACTERS_MAX or "\0" in request.reason:
        yield FieldViolation(
            "reason", f"must be 1 to {REASON_CHARACTERS_MAX} characters, none of them NUL"
        )


def _name(message: Any) -> str:
    name: str = message.DESCRIPTOR.full_name
    return name


CHECKS: Mapping[str, Check] = {
    _name(webhook_pb2.ListEventsRequest): _check_list,
    _name(webhook_pb2.ReplayEventsRequest): _check_replay,
    _name(webhook_pb2.DropEventsRequest): _check_drop,
}
"""What is checked of requests beyond their annotations, by full name of the message."""
