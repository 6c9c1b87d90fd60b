"""Copies a finished video from the provider into our storage, with a still of it.

The provider keeps an output for one hour
(https://replicate.com/docs/topics/predictions/data-retention), so nothing is paid before it is
ours.
"""

import asyncio
import re
import tempfile
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import file_digest, sha256
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from services.generation.state import Output
from services.generation.videos import BrokenVideo, inspect_video
from services.runtime.failpoints import failpoint
from services.runtime.storage import FileMissing, Storage, StorageFailed
from services.runtime.telemetry import get_logger

__all__ = ["Archive", "Archived", "Gone", "NotAVideo", "Unreachable", "output_key", "thumbnail_key"]

OUTPUT_BYTES_MAX = 256 * 1024 * 1024
PROVIDER_DOMAINS = ("replicate.delivery", "api.replicate.com")
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")
WRITE_BYTES = 1024 * 1024
INSPECTIONS_MAX = 2
"""Videos that are looked into at once, each by one core."""
_BOX_HEADER_BYTES = 8
_HOST = re.compile(r"[a-z0-9.-]+")

logger = get_logger(__name__)


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


def output_key(user_id: str, generation_id: str) -> str:
    """Returns where storage keeps the video of a generation."""
    return f"outputs/{user_id}/{generation_id}.mp4"


def thumbnail_key(user_id: str, generation_id: str) -> str:
    """Returns where storage keeps a still of that video."""
    return f"thumbnails/{user_id}/{generation_id}.jpg"


class Archive:
    """Downloads outputs and puts them into storage."""

    def __init__(
        self, storage: Storage, token: str, delivery_origins: Collection[str], call_s: float
    ) -> None:
        self._storage = storage
        self._token = token
        self._origins = frozenset(delivery_origins)
        self._threads = ThreadPoolExecutor(INSPECTIONS_MAX, thread_name_prefix="videos")
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
        """Stores the video at `url`; a video that is stored already is the same success.

        That holds too if the address has it no more: a process may have ended between storing a
        video and saying so.
        """
        if not self._may_fetch(url):
            return NotAVideo(f"not an address of the provider: {url[:200]}")
        key = output_key(user_id, generation_id)
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            path = Path(file.name)
            try:
                outcome = await self._download(url, key, path)
                gone = outcome if isinstance(outcome, Gone) else None
                if gone is not None:
                    outcome = await self._stored(key, path) or gone
                if not isinstance(outcome, Output):
                    return outcome
                video = await asyncio.get_running_loop().run_in_executor(
                    self._threads, inspect_video, path
                )
                failpoint("archive.downloaded")
                await self._storage.put_new(key, path)
            except BrokenVideo as error:
                # Half of what was stored before is nothing; the provider may have the whole.
                return gone or NotAVideo(str(error))
            except StorageFailed as error:
                return Unreachable(f"storage: {error}")
            still = await self._keep(thumbnail_key(user_id, generation_id), video.thumbnail)
            return Archived(replace(outcome, video_seconds=video.seconds, thumbnail_key=still))

    async def _stored(self, key: str, path: Path) -> Output | None:
        """Returns what an attempt before stored under `key`, copied to `path`; None if nothing."""
        try:
            await self._storage.fetch(key, path)
        except FileMissing:
            return None
        logger.info("video was stored before", key=key)
        return await asyncio.to_thread(_measure, key, path)

    async def _keep(self, key: str, thumbnail: bytes | None) -> str | None:
        """Returns the key of the stored thumbnail; None if there is none, which fails nothing."""
        if thumbnail is None:
            logger.warning("no thumbnail", key=key)
            return None
        try:
            await self._storage.put(key, thumbnail)
        except StorageFailed as error:
            logger.warning("thumbnail not stored", key=key, detail=str(error))
            return None
        return key

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.aclose()
        self._threads.shutdown()

    def _may_fetch(self, url: str) -> bool:
        """Tells whether `url` is the provider's: by https, or of an origin that settings name."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:  # A bracket or a port that is none.
            return False
        if f"{parts.scheme}://{parts.netloc}" in self._origins:
            # A name without a dot is one of this network, where a simulator may be.
            is_near = host in LOOPBACK_HOSTS or not {".", ":"} & set(host)
            return parts.scheme == "https" or is_near
        return (
            parts.scheme == "https"
            and port in (None, 443)
            # Parsers disagree about hosts with other characters.
            and _HOST.fullmatch(host) is not None
            and any(host == domain or host.endswith(f".{domain}") for domain in PROVIDER_DOMAINS)
        )

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


def _measure(key: str, path: Path) -> Output:
    with path.open("rb") as file:
        return Output(key, path.stat().st_size, file_digest(file, "sha256").hexdigest())
