"""Copies a finished video from the provider into our storage.

The provider keeps an output for one hour
(https://replicate.com/docs/topics/predictions/data-retention), so nothing is paid before it is
ours.
"""

import asyncio
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from services.generation.state import Output
from services.runtime.storage import Storage, StorageFailed

__all__ = ["Archive", "Archived", "Gone", "NotAVideo", "Unreachable"]

OUTPUT_BYTES_MAX = 256 * 1024 * 1024
PROVIDER_DOMAINS = ("replicate.delivery", "api.replicate.com")
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
WRITE_BYTES = 1024 * 1024
_BOX_HEADER_BYTES = 8


@dataclass(frozen=True, slots=True)
class Archived:
    """The video is ours."""

    output: Output


@dataclass(frozen=True, slots=True)
class Gone:
    """The address has no video any more, or does not let us have it."""

    detail: str


@dataclass(frozen=True, slots=True)
class NotAVideo:
    """What the address has is no video, or none that we would fetch."""

    detail: str


@dataclass(frozen=True, slots=True)
class Unreachable:
    """It did not work this time."""

    detail: str


class Archive:
    """Downloads outputs and puts them into storage."""

    def __init__(
        self, storage: Storage, token: str, delivery_origins: Collection[str], call_s: float
    ) -> None:
        self._storage = storage
        self._token = token
        self._origins = frozenset(delivery_origins)
        # No redirect is followed: it could lead the token to a foreign host.
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(call_s, connect=5.0),
            follow_redirects=False,
            # No proxy of the environment sees the token.
            trust_env=False,
        )

    async def save(
        self, user_id: str, generation_id: str, url: str
    ) -> Archived | Gone | NotAVideo | Unreachable:
        """Stores the video at `url`; a video that is stored already is the same success."""
        if not self._may_fetch(url):
            return NotAVideo(f"not an address of the provider: {url[:200]}")
        key = f"outputs/{user_id}/{generation_id}.mp4"
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            path = Path(file.name)
            outcome = await self._download(url, key, path)
            if isinstance(outcome, Output):
                try:
                    await self._storage.put_new(key, path)
                except StorageFailed as error:
                    return Unreachable(f"storage: {error}")
                return Archived(outcome)
            return outcome

    def link(self, key: str) -> str:
        """Returns the address under which a stored file can be had."""
        return self._storage.link(key)

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.aclose()

    def _may_fetch(self, url: str) -> bool:
        """Tells whether `url` is the provider's: by https, or of an origin that settings name."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError:  # A bracket or a port that is none.
            return False
        if f"{parts.scheme}://{parts.netloc}" in self._origins:
            return parts.scheme == "https" or host in LOOPBACK_HOSTS
        known = any(host == domain or host.endswith(f".{domain}") for domain in PROVIDER_DOMAINS)
        return parts.scheme == "https" and known

    async def _download(
        self, url: str, key: str, path: Path
    ) -> Output | Gone | NotAVideo | Unreachable:
        """Downloads to `path`; the token is shown only where it is asked for."""
        try:
            outcome = await self._fetch(url, key, path, {})
            if outcome is None:
                outcome = await self._fetch(
                    url, key, path, {"Authorization": f"Bearer {self._token}"}
                )
        except httpx.InvalidURL as error:
            return NotAVideo(f"not an address: {error}")
        except (httpx.HTTPError, OSError) as error:  # The network, or a disk that is full.
            return Unreachable(f"{type(error).__name__}: {error}")
        return outcome or Gone("HTTP 401 or 403")

    async def _fetch(
        self, url: str, key: str, path: Path, headers: dict[str, str]
    ) -> Output | Gone | NotAVideo | Unreachable | None:
        """Downloads once; returns None if the address wants to know who asks."""
        async with self._client.stream("GET", url, headers=headers) as response:
            match response.status_code:
                case 200:
                    pass
                case 401 | 403:
                    return None
                case 404 | 410:
                    return Gone(f"HTTP {response.status_code}")
                case status:
                    return Unreachable(f"HTTP {status}")
            length = response.headers.get("Content-Length", "")
            if length.isdigit() and int(length) > OUTPUT_BYTES_MAX:
                return NotAVideo(f"more than {OUTPUT_BYTES_MAX} bytes")
            digest, size, start = sha256(), 0, b""
            with path.open("wb") as file:
                async for part in response.aiter_bytes(WRITE_BYTES):
                    size += len(part)
                    if size > OUTPUT_BYTES_MAX:
                        return NotAVideo(f"more than {OUTPUT_BYTES_MAX} bytes")
                    if len(start) < _BOX_HEADER_BYTES:
                        start += part[:_BOX_HEADER_BYTES]
                    digest.update(part)
                    await asyncio.to_thread(file.write, part)
            # httpx raises if fewer bytes came than the header said.
            if start[4:8] != b"ftyp":
                return NotAVideo("no MP4: it does not begin with a box `ftyp`")
            return Output(key, size, digest.hexdigest())
