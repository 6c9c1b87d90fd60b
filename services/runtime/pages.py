"""The tokens of pages: opaque to callers, and good for the list only that they were given for."""

import base64
import hashlib
import struct
from collections.abc import Callable
from typing import TypeVar

from services.runtime.errors import FieldViolation, InvalidRequest

__all__ = ["page_token", "place_in"]

DIGEST_BYTES = 16
_Place = TypeVar("_Place")


def page_token(list_name: str, place: bytes) -> str:
    """Returns the token of the page behind `place`; `list_name` names the method and its filter."""
    return base64.urlsafe_b64encode(_digest(list_name, place) + place).decode()


def place_in(token: str, list_name: str, unpack: Callable[[bytes], _Place]) -> _Place:
    """Returns the place in a token; raises InvalidRequest unless it was given for this list."""
    try:
        place = base64.b64decode(token, altchars=b"-_", validate=True)[DIGEST_BYTES:]
        # One token stands for one page: what would not be written so was not given by us.
        if page_token(list_name, place) == token:
            return unpack(place)
    except (ValueError, OverflowError, struct.error):
        pass  # Not what we write either.
    raise InvalidRequest(
        [FieldViolation("page_token", "must be the next_page_token of the same request")]
    )


def _digest(list_name: str, place: bytes) -> bytes:
    """Returns what binds a place to the list that it is in."""
    return hashlib.blake2b(list_name.encode() + b"|" + place, digest_size=DIGEST_BYTES).digest()
