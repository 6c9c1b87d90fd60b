"""Cuts a list of predictions into pages, as Replicate does; pure."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import parse_qs, urlencode

from services.simulator.prediction import Prediction
from services.simulator.problems import malformed

__all__ = ["Page", "page_of"]

PAGE_SIZE = 100
_NEWEST = 2**63
FILTERS = ("created_after", "created_before", "source")


@dataclass(frozen=True, slots=True)
class Page:
    """A page of predictions, newest first."""

    predictions: list[Prediction]
    next_query: str | None
    """Query of the address of the following, older page."""
    previous_query: str | None
    """Query of the address of the page before, with newer ones."""


def page_of(
    newest_first: Sequence[Prediction],
    query: Mapping[str, str],
    skew_s: float = 0.0,
    next_shift: Literal[-1, 0, 1] = 0,
) -> Page:
    """Returns the page that `query` asks for; raises a Problem if it makes no sense.

    The moments in `query` come from answers that are wrong by `skew_s`. The next page begins one
    prediction too early with a `next_shift` of -1, one too late with 1.
    """
    after = _moment(query, "created_after", float("-inf")) - skew_s
    before = _moment(query, "created_before", float("inf")) - skew_s
    # All predictions here were made by the API; the other source is the website.
    shown = newest_first if query.get("source", "api") == "api" else ()
    chosen = [one for one in shown if after <= one.read_created_at < before]
    backwards, number = _position(query.get("cursor"))
    if backwards:
        newer = [one for one in chosen if one.number > number]
        page = newer[-PAGE_SIZE:]
    else:
        page = [one for one in chosen if one.number < number][:PAGE_SIZE]
    if not page:
        return Page([], None, None)
    filters = {key: query[key] for key in FILTERS if key in query}
    older = [one for one in chosen if one.number < page[-1].number]
    newer_exist = chosen[0].number > page[0].number
    ends = {-1: page[-1].number + 1, 0: page[-1].number, 1: older[0].number if older else 0}
    return Page(
        page,
        _query(filters, f"p={ends[next_shift]}") if older else None,
        _query(filters, f"r=1&p={page[0].number}") if newer_exist else None,
    )


def _query(filters: Mapping[str, str], position: str) -> str:
    cursor = base64.b64encode(position.encode()).decode()
    return urlencode({**filters, "cursor": cursor})


def _position(cursor: str | None) -> tuple[bool, int]:
    """Returns whether a cursor leads to newer ones, and the number that it starts from."""
    if cursor is None:
        return False, _NEWEST
    try:
        values = parse_qs(base64.b64decode(cursor, validate=True).decode())
        return "r" in values, int(values["p"][0])
    except (binascii.Error, UnicodeDecodeError, KeyError, ValueError):
        raise malformed(400, "Invalid cursor", "The cursor is not one that was given out") from None


def _moment(query: Mapping[str, str], key: str, default: float) -> float:
    text = query.get(key)
    if text is None:
        return default
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise malformed(
            400, f"Invalid {key}", f"{key} must be a date and time in ISO 8601 form"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
