"""Signs and checks addresses of stored files: `<base>/<key>?expires=<unix>&signature=<MAC>`.

Whoever has such an address sees the file until it expires; nobody can make one for another file or
for longer. The generation service signs, the web service checks; neither imports the other.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from urllib.parse import quote

__all__ = ["VALID_S", "MediaVerdict", "check_media", "seconds_left", "sign_media"]

VALID_S = 3600
"""How long an address works, at the least."""
STEP_S = 900
"""For so long a file keeps its address, which caches go by."""

_QUERY = re.compile(
    r"expires=(?P<expires>[1-9][0-9]{0,11})&signature=(?P<signature>[\w-]{43})", re.ASCII
)


class MediaVerdict(StrEnum):
    """What an address proves."""

    GOOD = "good"
    """The file may be shown."""
    EXPIRED = "expired"
    """It might have been, earlier."""
    BAD = "bad"
    """The address is not ours."""


def sign_media(base_url: str, key: str, signing_key: bytes, now: datetime) -> str:
    """Returns the address under which the file of `key` can be had for the next hour."""
    expires = (int(now.timestamp()) // STEP_S + 1) * STEP_S + VALID_S
    return f"{base_url}/{quote(key)}?expires={expires}&signature={_mac(signing_key, key, expires)}"


def check_media(key: str, query: str, keys: Sequence[bytes], now: datetime) -> MediaVerdict:
    """Returns what the raw `query` of an address proves about the file of `key`.

    One that any of `keys` signed is genuine, so that addresses outlive a change of keys.
    """
    found = _QUERY.fullmatch(query)
    if found is None:
        return MediaVerdict.BAD
    expires = int(found["expires"])
    is_genuine = False
    for signing_key in keys:  # No early exit: the time taken tells nothing.
        is_genuine |= hmac.compare_digest(_mac(signing_key, key, expires), found["signature"])
    if not is_genuine:
        return MediaVerdict.BAD
    expired = now.astimezone(UTC).timestamp() >= expires
    return MediaVerdict.EXPIRED if expired else MediaVerdict.GOOD


def seconds_left(query: str, now: datetime) -> int:
    """Returns for how long an address that `check_media` found GOOD still works; 0 for others."""
    found = _QUERY.fullmatch(query)
    left_s = 0.0 if found is None else int(found["expires"]) - now.astimezone(UTC).timestamp()
    return max(0, int(left_s))


def _mac(signing_key: bytes, key: str, expires: int) -> str:
    # The keys sign callback addresses too; no message of one kind can be taken for the other's.
    message = f"media|v1|{expires}|{key}".encode()
    digest = hmac.digest(signing_key, message, hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
