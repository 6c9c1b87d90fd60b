"""Reads access tokens: signature first, by a key and an algorithm that the token cannot choose."""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OctKey, RSAKey

from services.web.keys import PublishedKeys, UnknownKey
from services.web.sessions import Person

__all__ = [
    "AUDIENCE",
    "BadToken",
    "KeyAndAlgorithm",
    "Proven",
    "TokenVerifier",
    "one_key",
    "published_key",
]

AUDIENCE = "authenticated"
LEEWAY_S = 10
TOKEN_CHARACTERS_MAX = 8192
NAME_CHARACTERS_MAX = 64
EMAIL_CHARACTERS_MAX = 320
EXPIRES_MAX = datetime(2999, 1, 1, tzinfo=UTC)

_USER_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_ESSENTIAL: Any = {"essential": True}


class BadToken(Exception):
    """A token that proves nothing; the text says why, for the log."""


@dataclass(frozen=True, slots=True)
class Proven:
    """What a good token proves."""

    person: Person
    """Whom it is about."""
    expires_at: datetime
    """Until when it holds."""


@dataclass(frozen=True, slots=True)
class KeyAndAlgorithm:
    """What a signature is checked with."""

    key: ECKey | RSAKey | OctKey
    algorithm: str
    """The only one that the key is used with."""


FindKey = Callable[[Mapping[str, Any]], Awaitable[KeyAndAlgorithm]]
"""Takes the header of a token, which nothing vouches for yet; raises BadToken."""


def one_key(key: ECKey | OctKey, algorithm: str) -> FindKey:
    """Returns what finds one key for every token."""
    found = KeyAndAlgorithm(key, algorithm)

    async def find(_: Mapping[str, Any]) -> KeyAndAlgorithm:
        return found

    return find


def published_key(keys: PublishedKeys) -> FindKey:
    """Returns what finds the published key that a token names; raises KeysAway besides."""

    async def find(header: Mapping[str, Any]) -> KeyAndAlgorithm:
        key_id = header.get("kid")
        if not isinstance(key_id, str):
            raise BadToken("names no key")
        try:
            key = await keys.get(key_id)
        except UnknownKey:
            raise BadToken("names an unknown key") from None
        return KeyAndAlgorithm(key, "ES256" if isinstance(key, ECKey) else "RS256")

    return find


class TokenVerifier:
    """Checks the tokens of one issuer."""

    def __init__(
        self, find_key: FindKey, issuer: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._find_key = find_key
        self._issuer = issuer
        self._clock = clock

    async def verify(self, token: str) -> Proven:
        """Returns what `token` proves; raises BadToken, and what finding its key raises."""
        if len(token) > TOKEN_CHARACTERS_MAX or not token.isascii():
            raise BadToken("is no token")
        try:
            header = jws.extract_compact(token.encode()).headers()
        except (JoseError, ValueError, TypeError, KeyError, RecursionError):
            raise BadToken("is no token") from None
        found = await self._find_key(header)
        registry = jwt.JWTClaimsRegistry(
            now=int(self._clock()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": AUDIENCE},
            exp=_ESSENTIAL,
            sub=_ESSENTIAL,
        )
        try:
            claims = jwt.decode(token, found.key, algorithms=[found.algorithm]).claims
            registry.validate(claims)
        except JoseError as error:
            raise BadToken(error.error) from None
        except (ValueError, TypeError, KeyError, RecursionError):
            raise BadToken("cannot be read") from None
        return Proven(_person(claims), _moment(claims["exp"]))


def _person(claims: Mapping[str, Any]) -> Person:
    user_id, email = claims["sub"], _text(claims.get("email"), EMAIL_CHARACTERS_MAX)
    if not _USER_ID.fullmatch(user_id):
        raise BadToken("is about nobody who can have an account")
    # Users edit `user_metadata` themselves: good for a name, and for nothing else.
    own = _members(claims.get("user_metadata"))
    name = _text(own.get("full_name") or own.get("name"), NAME_CHARACTERS_MAX)
    return Person(
        user_id=user_id,
        name=name or email.partition("@")[0][:NAME_CHARACTERS_MAX] or user_id,
        email=email,
        is_admin=_members(claims.get("app_metadata")).get("role") == "admin",
    )


def _members(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object, characters_max: int) -> str:
    """Returns what can be shown of a text that may be anything."""
    if not isinstance(value, str):
        return ""
    return "".join(character for character in value if character.isprintable())[:characters_max]


def _moment(seconds: float) -> datetime:
    try:
        return min(datetime.fromtimestamp(seconds, UTC), EXPIRES_MAX)
    except (OverflowError, ValueError, OSError):
        return EXPIRES_MAX
