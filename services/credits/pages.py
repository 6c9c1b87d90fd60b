"""The tokens of pages: opaque to callers, and good for the list only that they were given for."""

import base64
import hashlib
import re
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from reelworks.credits.v1 import credits_pb2

from services.credits.reads import ReservationPlace
from services.runtime.errors import FieldViolation, InvalidRequest

__all__ = [
    "reservation_page_token",
    "reservation_place_in",
    "transaction_page_token",
    "version_in",
]

DIGEST_BYTES = 16
_IDS = re.compile(r"([A-Za-z0-9_-]{1,64})\0([A-Za-z0-9_-]{1,64})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = timedelta(microseconds=1)
_NUMBER = struct.Struct(">q")
_Place = TypeVar("_Place")


def transaction_page_token(request: credits_pb2.ListTransactionsRequest, version: int) -> str:
    """Returns the token of the page of a user's statement that follows `version`."""
    return _token(_statement(request), _NUMBER.pack(version))


def version_in(request: credits_pb2.ListTransactionsRequest) -> int | None:
    """Returns the version that the page asked for follows; None for the first page.

    Raises InvalidRequest when the token was not given for this list.
    """
    if not request.page_token:
        return None
    return _place_in(request.page_token, _statement(request), _version)


def reservation_page_token(
    request: credits_pb2.ListReservationsRequest, last: ReservationPlace
) -> str:
    """Returns the token of the page of reservations behind `last`."""
    microseconds = (last.moment - _EPOCH) // _INSTANT
    ids = f"{last.reservation_id}\0{last.user_id}".encode()
    return _token(_reservations(request), _NUMBER.pack(microseconds) + ids)


def reservation_place_in(request: credits_pb2.ListReservationsRequest) -> ReservationPlace | None:
    """Returns the place that the page asked for follows; None for the first page.

    Raises InvalidRequest when the token was not given for this list.
    """
    if not request.page_token:
        return None
    return _place_in(request.page_token, _reservations(request), _reservation_place)


def _version(place: bytes) -> int:
    version: int
    (version,) = _NUMBER.unpack(place)
    return version


def _reservation_place(place: bytes) -> ReservationPlace:
    (microseconds,) = _NUMBER.unpack_from(place)
    # The digest has no key: whoever reads this can write tokens, but no ids that are none.
    ids = _IDS.fullmatch(place[_NUMBER.size :].decode())
    if ids is None:
        raise ValueError("no ids")
    return ReservationPlace(_EPOCH + microseconds * _INSTANT, ids[1], ids[2])


def _statement(request: credits_pb2.ListTransactionsRequest) -> str:
    return f"ListTransactions|{request.user_id}|{request.after_version}"


def _reservations(request: credits_pb2.ListReservationsRequest) -> str:
    before = request.created_before
    moment = f"{before.seconds}.{before.nanos}" if request.HasField("created_before") else ""
    return f"ListReservations|{request.user_id}|{request.state}|{moment}"


def _token(filter_: str, place: bytes) -> str:
    return base64.urlsafe_b64encode(_digest(filter_, place) + place).decode()


def _place_in(token: str, filter_: str, unpack: Callable[[bytes], _Place]) -> _Place:
    """Returns the place in a token; raises InvalidRequest unless it was given for this filter."""
    try:
        place = base64.b64decode(token, altchars=b"-_", validate=True)[DIGEST_BYTES:]
        # One token stands for one page: what would not be written so was not given by us.
        if _token(filter_, place) == token:
            return unpack(place)
    except (ValueError, OverflowError, struct.error):
        pass  # Not what we write either.
    raise InvalidRequest(
        [FieldViolation("page_token", "must be the next_page_token of the same request")]
    )


def _digest(filter_: str, place: bytes) -> bytes:
    """Returns what binds a place to the list that it is in."""
    return hashlib.blake2b(filter_.encode() + b"|" + place, digest_size=DIGEST_BYTES).digest()
