"""Reads what the provider's answers say besides predictions: problems, waits, addresses, times.

Nothing here raises, whatever an answer holds.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from services.generation.failures import InvalidField
from services.generation.prediction import printable
from services.generation.transport import Exchange

__all__ = [
    "address_in",
    "clock_ahead_s",
    "cursor_of",
    "has_problem_shape",
    "invalid_fields",
    "moment_of",
    "object_in",
    "problem_detail",
    "retry_after_s",
]

ADDRESS_CHARACTERS_MAX = 2048
RETRY_AFTER_S_DEFAULT = 10.0
RETRY_AFTER_S_MIN = 1.0
RETRY_AFTER_S_MAX = 120.0


def object_in(body: bytes) -> Mapping[str, Any]:
    """Returns the JSON object that an answer holds; an empty one if it holds none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def has_problem_shape(body: bytes) -> bool:
    """Tells whether an error is the provider's own, and not that of a proxy before it."""
    return isinstance(object_in(body).get("detail"), str)


def problem_detail(exchange: Exchange) -> str:
    """Returns what an error says, in one line; '' if it is not the provider's own."""
    detail = object_in(exchange.body).get("detail")
    return printable(detail) if isinstance(detail, str) else ""


def invalid_fields(exchange: Exchange) -> list[InvalidField]:
    """Returns the parameters that an error names as the reason; none where it names none."""
    listed = object_in(exchange.body).get("invalid_fields")
    found = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    texts = [(one.get("field", ""), one.get("description")) for one in found]
    return [
        # Fields are named as paths in the body of the create: `input.seed`, or `input` itself.
        InvalidField(str(name).removeprefix("input").removeprefix("."), rule)
        for name, rule in texts
        if isinstance(rule, str)
    ]


def retry_after_s(exchange: Exchange) -> float:
    """Returns how long to wait after a 429: the longest of all that says so, within reason."""
    waits = [_seconds(object_in(exchange.body).get("retry_after"))]
    waits.append(_header_seconds(exchange.headers))
    if found := re.search(r"~\s*(\d+(?:\.\d+)?)\s*s", problem_detail(exchange)):
        waits.append(float(found[1]))
    said = max((wait for wait in waits if wait is not None), default=RETRY_AFTER_S_DEFAULT)
    return min(max(said, RETRY_AFTER_S_MIN), RETRY_AFTER_S_MAX)


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        return None
    return seconds if seconds == seconds else None


def _header_seconds(headers: httpx.Headers) -> float | None:
    """Reads `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3)."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    seconds = _seconds(value)
    if seconds is not None:
        return seconds
    try:
        until = parsedate_to_datetime(value)
        sent = parsedate_to_datetime(headers.get("Date", ""))
        return (until - sent).total_seconds()
    except (ValueError, OverflowError, TypeError):  # TypeError: only one of them has a zone.
        return None


def clock_ahead_s(exchange: Exchange) -> float:
    """Returns how far the provider's clock is ahead of this machine's; 0 if it does not tell."""
    try:
        sent = parsedate_to_datetime(exchange.headers.get("Date", ""))
    except (ValueError, OverflowError, TypeError):
        return 0.0
    if exchange.received_at is None or sent.tzinfo is None:
        return 0.0
    # `Date` has whole seconds (RFC 9110, section 6.6.1): on the average it is half of one behind.
    return (sent - exchange.received_at).total_seconds() + 0.5


def cursor_of(following: object, base_url: httpx.URL) -> str | None:
    """Returns the address of a next page if it is one of this API, since it is sent our token."""
    url = _url_of(following)
    if url is None or url.userinfo or _origin(url) != _origin(base_url):
        return None
    return str(url)


def address_in(value: object) -> str | None:
    """Returns an address that an input can refer to; None if `value` is none."""
    url = _url_of(value)
    return None if url is None or url.scheme not in ("http", "https") or not url.host else str(url)


def moment_of(value: object) -> datetime | None:
    """Returns a time given in ISO 8601 with its zone; None if `value` is none."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        # Near the ends of the calendar a time of another zone is none in UTC.
        return moment.astimezone(UTC) if moment is not None and moment.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _url_of(value: object) -> httpx.URL | None:
    if not isinstance(value, str) or len(value) > ADDRESS_CHARACTERS_MAX:
        return None
    try:
        return httpx.URL(value)
    except (httpx.InvalidURL, ValueError):  # ValueError: half a surrogate pair, for one.
        return None


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
