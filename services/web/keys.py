"""Keeps the keys that an issuer of tokens publishes: fetched when needed, and not too often."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from services.runtime.telemetry import get_logger

__all__ = ["KeysAway", "PublishedKeys", "UnknownKey", "VerifyingKey", "read_keys"]

FETCH_PAUSE_S = 30.0
"""Between two fetches: whoever makes up key ids cannot have us attack the issuer."""
FIRST_PAUSE_S = 3.0
"""The same while there is no key at all, so that a start during an outage is over with it."""
FRESH_S = 600.0
"""Older keys are fetched anew when used, or one that was withdrawn would be believed for ever."""
FETCH_S_MAX = 3.0
BYTES_MAX = 256 * 1024
KEYS_MAX = 64
KEY_ID_CHARACTERS_MAX = 256
RSA_BITS_MIN = 2048

VerifyingKey = ECKey | RSAKey

logger = get_logger(__name__)


class UnknownKey(Exception):
    """The issuer has published no such key."""


class KeysAway(Exception):
    """The issuer's keys cannot be had now."""


class PublishedKeys:
    """The keys at an address, as in RFC 7517. A fetch that fails leaves the last good ones."""

    def __init__(
        self, url: str, http: httpx.AsyncClient, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url
        self._http = http
        self._clock = clock
        self._keys: Mapping[str, VerifyingKey] = {}
        self._fetch: asyncio.Task[None] | None = None
        self._tried_at = float("-inf")
        self._fetched_at = float("-inf")
        self._succeeded = False

    async def get(self, key_id: str) -> VerifyingKey:
        """Returns a key by its id; raises UnknownKey, or KeysAway if the last fetch failed."""
        found = self._keys.get(key_id)
        if found is not None:
            if self._clock() - self._fetched_at > FRESH_S:
                self._start()  # For those who come later.
            return found
        if len(key_id) > KEY_ID_CHARACTERS_MAX:
            raise UnknownKey
        self._start()
        if self._fetch is not None:
            # Whoever leaves does not end it for the others.
            await asyncio.shield(self._fetch)
        found = self._keys.get(key_id)
        if found is None:
            raise UnknownKey if self._succeeded else KeysAway
        return found

    async def close(self) -> None:
        """Ends a fetch that is under way."""
        if self._fetch is not None:
            self._fetch.cancel()
            await asyncio.wait([self._fetch])

    def _start(self) -> None:
        """Begins a fetch, unless one is under way or was a moment ago."""
        pause_s = FETCH_PAUSE_S if self._keys else FIRST_PAUSE_S
        if self._fetch is None and self._clock() - self._tried_at >= pause_s:
            self._tried_at = self._clock()
            self._fetch = asyncio.create_task(self._fetch_once())
            self._fetch.add_done_callback(self._forget)

    def _forget(self, _: "asyncio.Task[None]") -> None:
        self._fetch = None

    async def _fetch_once(self) -> None:
        self._succeeded = False
        try:
            async with asyncio.timeout(FETCH_S_MAX):
                keys = read_keys(await self._read())
        except (httpx.HTTPError, ValueError, TimeoutError) as error:
            logger.warning("keys not fetched", url=self._url, cause=str(error) or repr(error))
            return
        self._succeeded = True
        self._fetched_at = self._clock()
        if keys.keys() != self._keys.keys():
            logger.info("keys fetched", url=self._url, key_ids=sorted(keys))
        self._keys = keys

    async def _read(self) -> bytes:
        content = b""
        async with self._http.stream("GET", self._url, timeout=FETCH_S_MAX) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"answered {response.status_code}")
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > BYTES_MAX:
                    raise ValueError("is too large")
        return content


def read_keys(content: bytes) -> dict[str, VerifyingKey]:
    """Returns the keys of a set that tokens can be verified with, by id.

    Others are left out, among them shared secrets: what is published is none. Raises ValueError if
    no key is left.
    """
    try:
        members: Any = json.loads(content)
        entries = list(members["keys"])[:KEYS_MAX]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("is no set of keys") from None
    keys: dict[str, VerifyingKey] = {}
    for entry in entries:
        key = _read_key(entry)
        if key is not None:
            keys.setdefault(entry["kid"], key)
    if not keys:
        raise ValueError("has no key for ES256 or RS256")
    return keys


def _read_key(entry: Any) -> VerifyingKey | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str):
        return None
    if entry.get("use", "sig") != "sig" or len(entry["kid"]) > KEY_ID_CHARACTERS_MAX:
        return None
    public = {name: value for name, value in entry.items() if name in _MEMBERS}
    try:
        match entry.get("kty"), entry.get("alg", ""):
            case "EC", "" | "ES256":
                key = ECKey.import_key(public)
                return key if key.curve_name == "P-256" else None
            case "RSA", "" | "RS256":
                rsa = RSAKey.import_key(public)
                return rsa if rsa.public_key.key_size >= RSA_BITS_MIN else None
            case _:
                return None
    except (JoseError, ValueError, TypeError, KeyError):
        return None


_MEMBERS = ("kty", "kid", "crv", "x", "y", "n", "e")
"""What a public key is made of; `key_ops` and the like say nothing that is not checked here."""
