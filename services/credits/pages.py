"""The tokens of the ledger's pages."""

import re
import struct
from datetime import UTC, datetime, timedelta

from reelworks.credits.v1 import credits_pb2

from services.credits.reads import ReservationPlace
from services.runtime.pages import page_token, place_in

__all__ = [
    "reservation_page_token",
    "reservation_place_in",
    "transaction_page_token",
    "version_in",
]

_IDS = re.compile(r"([A-Za-z0-9_-]{1,64})\0([A-Za-z0-9_-]{1,64})")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = timedelta(microseconds=1)
_NUMBER = struct.Struct(">q")


def transaction_page_token(request: credits_pb2.ListTransactionsRequest, version: int) -> str:
    """Returns the token of the page of a user's statement that follows `version`."""
    return page_token(_statement(request), _NUMBER.pack(version))


def version_in(request: credits_pb2.ListTransactionsRequest) -> int | None:
    """Returns the version that the page asked for follows; None for the first page.

    Raises InvalidRequest when the token was not given for this list.
    """
    if not request.page_token:
        return None
    return place_in(request.page_token, _statement(request), _version)


def reservation_page_token(
    request: credits_pb2.ListReservationsRequest, last: ReservationPlace
) -> str:
    """Returns the token of the page of reservations behind `last`."""
    microseconds = (last.moment - _EPOCH) // _INSTANT
    ids = f"{last.reservation_id}\0{last.user_id}".encode()
    return page_token(_reservations(request), _NUMBER.pack(microseconds) + ids)


def reservation_place_in(request: credits_pb2.ListReservationsRequest) -> ReservationPlace | None:
    """Returns the place that the page asked for follows; None for the first page.

    Raises InvalidRequest when the token was not given for this list.
    """
    if not request.page_token:
        return None
    return place_in(request.page_token, _reservations(request), _reservation_place)


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
