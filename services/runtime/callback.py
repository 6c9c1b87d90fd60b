"""Signs and checks the query of a callback address: `?g=<generation>&a=<attempt>&k=<MAC>`.

The provider's signature covers a webhook's body but not the address it was sent to. The MAC proves
that the address is ours, for this environment, this generation and this attempt. The generation
service signs, the webhook service checks; neither imports the other.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Callback", "Verdict", "parse_keys", "read_query", "sign_query"]

KEY_BYTES_MIN = 32
MAC_CHARACTERS = 22

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
# Every value is safe in an address as it is, so nothing may be percent-encoded.
_QUERY = re.compile(rf"g=(?P<g>{_UUID})&a=(?P<a>[1-9][0-9]{{0,2}})&k=(?P<k>[A-Za-z0-9_-]{{22}})")


class Verdict(StrEnum):
    """What a query proves."""

    GOOD = "good"
    """The address is ours."""
    MISSING = "missing"
    """The address has no query, so it names nothing."""
    BAD = "bad"
    """The address names something without proof."""


@dataclass(frozen=True, slots=True)
class Callback:
    """What an address was found to name."""

    verdict: Verdict
    generation_id: str = ""
    """Empty unless GOOD."""
    attempt: int = 0
    """1 to 999; 0 unless GOOD."""


def sign_query(key: bytes, environment: str, generation_id: str, attempt: int) -> str:
    """Returns the query of the callback address of an attempt, without the question mark."""
    return f"g={generation_id}&a={attempt}&k={_mac(key, environment, generation_id, attempt)}"


def read_query(query: str, keys: Sequence[bytes], environment: str) -> Callback:
    """Returns what the raw query of an address names; it is believed if one of `keys` signed it."""
    if not query:
        return Callback(Verdict.MISSING)
    found = _QUERY.fullmatch(query)
    if found is None:
        # The order is ours when we made the address, but the rule is only: each exactly once.
        parts = sorted(query.split("&"), key=lambda part: "gak".find(part[:1]))
        found = _QUERY.fullmatch("&".join(parts))
    if found is None:
        return Callback(Verdict.BAD)
    generation_id, attempt = found["g"], int(found["a"])
    good = False
    for key in keys:  # No early exit: the time taken tells nothing.
        expected = _mac(key, environment, generation_id, attempt)
        good |= hmac.compare_digest(expected, found["k"])
    return Callback(Verdict.GOOD, generation_id, attempt) if good else Callback(Verdict.BAD)


def parse_keys(content: str) -> tuple[bytes, ...]:
    """Returns the keys of a key file: one base64 key of at least 32 bytes a line, newest first.

    Raises ValueError that names the line, never its content.
    """
    keys = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            key = base64.b64decode(line.strip(), validate=True)
        except ValueError:
            raise ValueError(f"line {number} is not base64") from None
        if len(key) < KEY_BYTES_MIN:
            raise ValueError(f"line {number} has fewer than {KEY_BYTES_MIN} bytes")
        keys.append(key)
    if not keys:
        raise ValueError("holds no key")
    return tuple(keys)


def _mac(key: bytes, environment: str, generation_id: str, attempt: int) -> str:
    message = f"v1|{environment}|{generation_id}|{attempt}".encode()
    digest = hmac.digest(key, message, hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode()[:MAC_CHARACTERS]
