"""Reads and writes the ids of events, which say how far a reader of the stream is."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

__all__ = ["AGE_MAX", "SKEW", "Position", "format_position", "parse_position"]

SKEW = timedelta(minutes=1)
"""How far our clock and that of the generation service may be apart."""

AGE_MAX = timedelta(days=7)
"""How far back a reader may go on from; all that was updated since has to be read for it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# Longer numbers would leave the calendar, or the ledger's 64 bits.
_FORM = re.compile(r"([0-9]{1,17})\.([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reader is: it has all that happened before, and knows of nothing after."""

    updated_at: datetime
    """When the newest generation that was sent was last updated."""
    balance_version: int
    """The version of the newest balance that was sent; 0 if none was."""


def format_position(position: Position) -> str:
    """Returns the id of an event that brings a reader to `position`."""
    microseconds = (position.updated_at - _EPOCH) // _MICROSECOND
    return f"{microseconds}.{position.balance_version}"


def parse_position(event_id: str, now: datetime) -> Position | None:
    """Returns the position that an id stands for; None if it is none to go on from.

    That is one that cannot be read, one in the future, of another database for example, and one
    that is too old.
    """
    found = _FORM.fullmatch(event_id)
    if found is None:
        return None
    microseconds, balance_version = (int(number) for number in found.groups())
    updated_at = _EPOCH + timedelta(microseconds=microseconds)
    if not now - AGE_MAX <= updated_at <= now + SKEW:
        return None
    return Position(updated_at, balance_version)
