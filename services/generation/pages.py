"""The tokens of the pages of generations."""

import struct
from datetime import UTC, datetime, timedelta
from uuid import UUID

from reelworks.generation.v1 import generation_pb2

from services.generation.history import Cursor
from services.runtime import pages

__all__ = ["cursor_in", "page_token", "parked_cursor_in", "parked_token"]

_PARKED = "ListParked"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = timedelta(microseconds=1)
_PLACE = struct.Struct(">Q16s")


def page_token(request: generation_pb2.ListGenerationsRequest, last: Cursor) -> str:
    """Returns the token of the page behind `last`, good for the filter of `request` only."""
    return pages.page_token(_history(request), _packed(last))


def cursor_in(request: generation_pb2.ListGenerationsRequest) -> Cursor | None:
    """Returns the place that the token of `request` stands for; None for the first page.

    Raises InvalidRequest if it is no token of this filter.
    """
    if not request.page_token:
        return None
    return pages.place_in(request.page_token, _history(request), _cursor)


def parked_token(last: Cursor) -> str:
    """Returns the token of the page of parked generations behind `last`."""
    return pages.page_token(_PARKED, _packed(last))


def parked_cursor_in(request: generation_pb2.ListParkedRequest) -> Cursor | None:
    """Returns the place that the token of `request` stands for; None for the first page.

    Raises InvalidRequest if it is no token of such a page.
    """
    if not request.page_token:
        return None
    return pages.place_in(request.page_token, _PARKED, _cursor)


def _packed(last: Cursor) -> bytes:
    microseconds = (last.created_at - _EPOCH) // _INSTANT
    return _PLACE.pack(microseconds, UUID(last.generation_id).bytes)


def _cursor(place: bytes) -> Cursor:
    microseconds, generation_id = _PLACE.unpack(place)
    return Cursor(_EPOCH + microseconds * _INSTANT, str(UUID(bytes=generation_id)))


def _history(request: generation_pb2.ListGenerationsRequest) -> str:
    """Returns what a token belongs to: the user and the filter, told apart without doubt."""
    parts = (request.user_id, str(request.status), str(request.kind), request.query)
    return "ListGenerations|" + "|".join(f"{len(part)}:{part}" for part in parts)
