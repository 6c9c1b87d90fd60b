"""Signs and reads quotes: what a video costs, held for a while by a token that the caller keeps.

Nothing is stored. The token proves that we named the price, for this user and this video, and until
when it holds.
"""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.generation.state import Kind

__all__ = ["QUOTE_HOLDS", "TOKEN_CHARACTERS_MAX", "Quote", "Terms", "read_quote", "sign_quote"]

QUOTE_HOLDS = timedelta(minutes=5)
TOKEN_CHARACTERS_MAX = 512
_LABEL = "reelworks quote 1"
"""Keeps these signatures apart from all others that are made with the same keys."""
_TOKEN = re.compile(r"([1-9][0-9]{0,17})\.([1-9][0-9]{0,10})\.([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a price is for."""

    user_id: str
    kind: Kind
    model: str
    resolution: str


@dataclass(frozen=True, slots=True)
class Quote:
    """A price, and until when it holds."""

    price_credits: int
    expires_at: datetime
    """In whole seconds."""


def sign_quote(key: bytes, terms: Terms, price_credits: int, now: datetime) -> tuple[str, Quote]:
    """Returns the token that holds a price from `now` on, and what it says."""
    expires_at = (now + QUOTE_HOLDS).astimezone(UTC).replace(microsecond=0)
    quote = Quote(price_credits, expires_at)
    seconds = int(expires_at.timestamp())
    return f"{price_credits}.{seconds}.{_signature(key, terms, price_credits, seconds)}", quote


def read_quote(token: str, keys: Sequence[bytes], terms: Terms) -> Quote | None:
    """Returns what a token says, whether or not it still holds.

    None if none of `keys` signed it, or if it is for something else.
    """
    found = _TOKEN.fullmatch(token)
    if found is None:
        return None
    price_credits, seconds, signature = int(found[1]), int(found[2]), found[3]
    good = False
    for key in keys:  # No early exit: the time taken tells nothing.
        good |= hmac.compare_digest(_signature(key, terms, price_credits, seconds), signature)
    return Quote(price_credits, datetime.fromtimestamp(seconds, UTC)) if good else None


def _signature(key: bytes, terms: Terms, price_credits: int, seconds: int) -> str:
    # As JSON, so that no two different things are written alike.
    words = [_LABEL, terms.user_id, terms.kind, terms.model, terms.resolution]
    message = json.dumps([*words, price_credits, seconds]).encode()
    digest = hmac.digest(key, message, hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
