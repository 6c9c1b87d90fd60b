"""Signs and reads the page's session: who somebody is, and until when that holds."""

import base64
import binascii
import hashlib
import hmac
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = ["Person", "Session", "Sessions"]

SESSION = timedelta(hours=1)
"""How long a session holds without being used."""
RENEWED_AFTER = timedelta(minutes=5)
"""A session in use is signed anew no more often than this."""
SESSION_MAX = timedelta(hours=12)
"""How long a session holds, however much it is used."""
VALUE_CHARACTERS_MAX = 3072
NAME = "reelworks_session"
SECURE_NAME = "__Host-reelworks_session"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody whom the configured verifier vouches for."""

    user_id: str
    """The id of their account."""
    name: str
    """What to call them."""
    email: str
    """Empty if unknown."""
    is_admin: bool
    """Whether they may do what operators may."""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who signed in."""

    person: Person
    """Who did."""
    began_at: datetime
    """When they did."""
    expires_at: datetime
    """Until when it holds, unless it is renewed."""


class Sessions:
    """The cookie of one installation, signed by the first of its keys and believed by any."""

    def __init__(self, keys: Sequence[bytes], *, is_secure: bool) -> None:
        self._keys = tuple(keys)
        self._is_secure = is_secure
        self.cookie_name = SECURE_NAME if is_secure else NAME
        """`__Host-` is believed by browsers under https only, and keeps other hosts from it."""

    def begin(self, person: Person, now: datetime) -> Session:
        """Returns the session of somebody who signs in now."""
        began_at = now.replace(microsecond=0)  # The cookie holds whole seconds.
        return Session(person, began_at, began_at + SESSION)

    def renewed(self, session: Session, now: datetime) -> Session | None:
        """Returns the session to go on with if it is time for one, else None."""
        expires_at = min(now.replace(microsecond=0) + SESSION, session.began_at + SESSION_MAX)
        if expires_at - session.expires_at < RENEWED_AFTER:
            return None
        return Session(session.person, session.began_at, expires_at)

    def value(self, session: Session) -> str:
        """Returns the cookie's value."""
        person = session.person
        members = {
            "sub": person.user_id,
            "name": person.name,
            "email": person.email,
            "admin": person.is_admin,
            "began": int(session.began_at.timestamp()),
            "exp": int(session.expires_at.timestamp()),
        }
        payload = _encode(json.dumps(members, separators=(",", ":")).encode())
        return f"{payload}.{_mac(self._keys[0], payload)}"

    def read(self, value: str, now: datetime) -> Session | None:
        """Returns the session that a cookie's value proves, or None."""
        payload, _, mac = value.partition(".")
        if len(value) > VALUE_CHARACTERS_MAX or not value.isascii():
            return None
        is_genuine = False
        for key in self._keys:  # No early exit: the time taken tells nothing.
            is_genuine |= hmac.compare_digest(_mac(key, payload), mac)
        if not is_genuine:
            return None
        session = _session(payload)
        if session is None or now >= session.expires_at:
            return None
        return session

    def cookie(self, session: Session, now: datetime) -> str:
        """Returns the header that has a browser keep a session."""
        age_s = max(0, math.ceil((session.expires_at - now).total_seconds()))
        return self._cookie(self.value(session), age_s)

    def farewell(self) -> str:
        """Returns the header that has a browser forget its session."""
        return self._cookie("", 0)

    def _cookie(self, value: str, age_s: int) -> str:
        secure = "; Secure" if self._is_secure else ""
        return (
            f"{self.cookie_name}={value}; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Lax{secure}"
        )


def _session(payload: str) -> Session | None:
    """Returns what a genuine payload says; None if an older version of us signed it otherwise."""
    try:
        members: Any = json.loads(_decode(payload))
        person = Person(
            user_id=str(members["sub"]),
            name=str(members["name"]),
            email=str(members["email"]),
            is_admin=members["admin"] is True,
        )
        return Session(person, _moment(members["began"]), _moment(members["exp"]))
    except (ValueError, KeyError, TypeError, binascii.Error):
        return None


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _mac(key: bytes, payload: str) -> str:
    return _encode(hmac.digest(key, f"session|v1|{payload}".encode(), hashlib.sha256))


def _encode(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
