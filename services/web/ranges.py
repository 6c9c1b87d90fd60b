"""Decides which bytes of a file a conditional or partial request gets (RFC 9110, 13 and 14)."""

import re
from dataclasses import dataclass

__all__ = ["NoSuchRange", "Span", "Unchanged", "Whole", "choose", "is_known"]

_RANGE = re.compile(
    r"bytes=[ \t]*(?P<first>[0-9]*)-(?P<last>[0-9]*)[ \t]*", re.ASCII | re.IGNORECASE
)
_TAG = re.compile(r'(?:W/)?"(?P<tag>[\x21\x23-\x7e\x80-\xff]*)"')
DIGITS_MAX = 18
"""Of a place in a file; Python reads longer numbers slowly, and no file is that long."""


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from `start` to before `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Whole:
    """All bytes."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """No bytes: the caller has them."""


@dataclass(frozen=True, slots=True)
class NoSuchRange:
    """No bytes: the file ends before those that were asked for."""


def choose(
    size_bytes: int,
    tag: str,
    *,
    wanted: str | None,
    if_none_match: str | None,
    if_range: str | None,
) -> Whole | Span | Unchanged | NoSuchRange:
    """Returns what of a file to send to a request with these headers, each None if absent.

    One range of bytes is understood. Whatever else `wanted` may be is passed over, as a server may,
    and answered with the whole file.
    """
    if if_none_match is not None and is_known(tag, if_none_match):
        return Unchanged()
    found = _RANGE.fullmatch(wanted or "")
    # A date would have to be compared with one that we send, and we send none.
    if found is None or (if_range is not None and if_range != f'"{tag}"'):
        return Whole()
    first, last = found["first"], found["last"]
    if len(first) > DIGITS_MAX or len(last) > DIGITS_MAX or not (first or last):
        return Whole()
    if not first:
        length = min(int(last), size_bytes)
        return Span(size_bytes - length, size_bytes) if length else NoSuchRange()
    if last and int(last) < int(first):
        return Whole()
    if int(first) >= size_bytes:
        return NoSuchRange()
    end = min(int(last) + 1, size_bytes) if last else size_bytes
    return Span(int(first), end)


def is_known(tag: str, if_none_match: str) -> bool:
    """Tells whether the header `If-None-Match` names `tag`: by weak comparison, as it asks for."""
    if if_none_match.strip() == "*":
        return True
    return any(found["tag"] == tag for found in _TAG.finditer(if_none_match))
