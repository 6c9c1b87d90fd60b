"""Verifies that a webhook was signed with one of our secrets (Standard Webhooks, HMAC-SHA256).

Specification: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

__all__ = ["BadSignature", "Reason", "Secret", "Verified", "decode_secret", "verify"]

SECRET_PREFIX = "whsec_"  # noqa: S105  The prefix that every secret has.
SECRET_BYTES_MIN = 16
SIGNATURE_CHARACTERS_MAX = 4096
SIGNATURE_BYTES = 32
TOKEN_PREFIX = "v1,"  # noqa: S105  The version of a signature.

_ID = re.compile(r"[!-~]{1,256}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class Reason(StrEnum):
    """Why a webhook is refused; for our own eyes, never for the sender's."""

    HEADER_MISSING = "header_missing"
    """One of the three headers is not there."""
    HEADER_REPEATED = "header_repeated"
    """One of the three headers is there more than once."""
    ID_MALFORMED = "id_malformed"
    TIMESTAMP_MALFORMED = "timestamp_malformed"
    SIGNATURE_TOO_LONG = "signature_too_long"
    NO_SIGNATURE = "no_signature"
    """No token is a `v1` signature."""
    WRONG_SIGNATURE = "wrong_signature"
    """All is well formed, but no active secret gives a signature that is there."""
    TOO_OLD = "too_old"
    TOO_NEW = "too_new"


class BadSignature(Exception):
    """A webhook was not signed with one of our secrets, or not lately."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret that webhooks may be signed with."""

    number: int
    """Its place in the list that it was given in, 0 for the newest."""
    key: bytes
    ends_at: datetime | None = None
    """When a retired secret stops to count; None for one in use."""

    def __repr__(self) -> str:
        return f"Secret(number={self.number}, ends_at={self.ends_at})"


@dataclass(frozen=True, slots=True)
class Verified:
    """What is known of a webhook whose signature is right."""

    webhook_id: str
    signed_at: datetime
    secret_number: int
    """The secret that it was signed with."""


def decode_secret(text: str) -> bytes:
    """Returns the key in `whsec_<base64>`, whose padding may be missing.

    Raises ValueError that says what is wrong, without the secret.
    """
    if not text.startswith(SECRET_PREFIX):
        raise ValueError(f"does not start with {SECRET_PREFIX}")
    encoded = text.removeprefix(SECRET_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        raise ValueError(f"is not base64 after {SECRET_PREFIX}") from None
    if len(key) < SECRET_BYTES_MIN:
        raise ValueError(f"has fewer than {SECRET_BYTES_MIN} bytes")
    return key


def verify(
    body: bytes,
    headers: Iterable[tuple[str, str]],
    secrets: Sequence[Secret],
    now: datetime,
    tolerance_s: int = 300,
) -> Verified:
    """Returns what is known of a webhook after checking its signature over the raw `body`.

    `headers` are all header lines as they came, repeated ones included. Raises BadSignature and
    nothing else, whatever the bytes.
    """
    webhook_id, timestamp, signature = _read_headers(headers)
    tokens = _read_tokens(signature)
    content = f"{webhook_id}.{timestamp}.".encode() + body
    number = _matching_secret(content, tokens, secrets, now)
    # The age comes last, so that an old message with a wrong signature is called wrong.
    age_s = now.timestamp() - int(timestamp)
    if age_s > tolerance_s:
        raise BadSignature(Reason.TOO_OLD)
    if age_s < -tolerance_s:
        raise BadSignature(Reason.TOO_NEW)
    return Verified(webhook_id, datetime.fromtimestamp(int(timestamp), UTC), number)


def _read_headers(headers: Iterable[tuple[str, str]]) -> tuple[str, str, str]:
    """Returns id, timestamp and signature."""
    found: dict[str, str] = {}
    for name, value in headers:
        lowered = name.lower()
        if lowered in ("webhook-id", "webhook-timestamp", "webhook-signature"):
            if lowered in found:
                raise BadSignature(Reason.HEADER_REPEATED)
            found[lowered] = value
    if len(found) < 3:
        raise BadSignature(Reason.HEADER_MISSING)
    if _ID.fullmatch(found["webhook-id"]) is None:
        raise BadSignature(Reason.ID_MALFORMED)
    if _TIMESTAMP.fullmatch(found["webhook-timestamp"]) is None:
        raise BadSignature(Reason.TIMESTAMP_MALFORMED)
    if len(found["webhook-signature"]) > SIGNATURE_CHARACTERS_MAX:
        raise BadSignature(Reason.SIGNATURE_TOO_LONG)
    return found["webhook-id"], found["webhook-timestamp"], found["webhook-signature"]


def _read_tokens(signature: str) -> list[bytes]:
    """Returns the signatures that a header names; malformed ones and other versions are skipped."""
    tokens = []
    for token in signature.split(" "):
        if not token.startswith(TOKEN_PREFIX):
            continue
        try:
            decoded = base64.b64decode(token.removeprefix(TOKEN_PREFIX), validate=True)
        except ValueError:
            continue
        if len(decoded) == SIGNATURE_BYTES:
            tokens.append(decoded)
    if not tokens:
        raise BadSignature(Reason.NO_SIGNATURE)
    return tokens


def _matching_secret(
    content: bytes, tokens: Sequence[bytes], secrets: Sequence[Secret], now: datetime
) -> int:
    """Returns the number of the first active secret that signed `content`."""
    matching: int | None = None
    for secret in secrets:
        if secret.ends_at is not None and secret.ends_at <= now:
            continue
        expected = hmac.digest(secret.key, content, hashlib.sha256)
        for token in tokens:  # No early exit: the time taken tells nothing.
            equal = hmac.compare_digest(expected, token)
            if equal and matching is None:
                matching = secret.number
    if matching is None:
        raise BadSignature(Reason.WRONG_SIGNATURE)
    return matching
