"""Takes images that people bring, and says where the provider finds them.

An image is stored before a request refers to it by `upload:<id>`. The provider gets an address of
our storage where it can reach that, else of a copy that its files API keeps for a day
(https://replicate.com/docs/topics/predictions/input-files).
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import assert_never

import uuid_utils

from services.generation.image_records import UPLOAD, ImageRecord, ImageRecords
from services.generation.images import NotAccepted, StillImage
from services.generation.judging import Judging
from services.generation.replicate import Replicate, Unreachable, Uploaded
from services.runtime.errors import FieldViolation, InvalidRequest, Unavailable
from services.runtime.storage import FileMissing, Storage, StorageFailed
from services.runtime.telemetry import get_logger

__all__ = ["ImageAddress", "ImageAway", "ImageGone", "JudgedImage", "Uploads"]

UNUSED_MAX = 100
"""Images that a user may have stored without a generation that uses them."""
COPIES_AT_ONCE = 2
"""Images that are handed to the provider at once."""
ADDRESS_S = 3 * 3600.0
"""How long an address of our storage works: longer than a generation is waited for."""
COPY_LEFT = timedelta(hours=2)
"""The provider's copy is used for as long as it lives so much longer."""

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ImageAddress:
    """Where the provider finds an image."""

    url: str


@dataclass(frozen=True, slots=True)
class ImageGone:
    """The image is no longer stored."""


@dataclass(frozen=True, slots=True)
class ImageAway:
    """The image cannot be had, or handed over, this time."""

    detail: str


@dataclass(frozen=True, slots=True)
class JudgedImage:
    """An image that is accepted, and is to be stored."""

    user_id: str
    digest: str
    """Of what was uploaded, hexadecimal."""
    image: StillImage
    """What is left of it."""


class Uploads:
    """The images of all users."""

    def __init__(self, records: ImageRecords, storage: Storage, provider: Replicate) -> None:
        self._records = records
        self._storage = storage
        self._provider = provider
        self._judging = Judging()
        self._copying = asyncio.Semaphore(COPIES_AT_ONCE)

    async def judge(self, user_id: str, content: bytes) -> ImageRecord | JudgedImage:
        """Returns the image that a user brings: as it is stored already, or accepted for `store`.

        Raises InvalidRequest for what is no image that is accepted, Overloaded, and Unavailable
        while the database is away.
        """
        digest = sha256(content).hexdigest()
        known = await self._records.renew(user_id, digest)
        if known is not None:
            return known
        if await self._records.count_unused(user_id, UNUSED_MAX) >= UNUSED_MAX:
            raise _refusal(
                f"must wait: {UNUSED_MAX} images of yours are stored that no generation uses; "
                "each goes 24 hours after its upload"
            )
        try:
            return JudgedImage(user_id, digest, await self._judging.judge(user_id, content))
        except NotAccepted as error:
            raise _refusal(str(error)) from error

    async def store(self, judged: JudgedImage) -> ImageRecord:
        """Stores an image; the same content again is the same image.

        Raises Unavailable while storage or database are away.
        """
        user_id, image = judged.user_id, judged.image
        image_id = str(uuid_utils.uuid7())
        record = ImageRecord(
            image_id=image_id,
            user_id=user_id,
            key=f"inputs/{user_id}/{image_id}.{image.format.extension}",
            content_type=image.format.content_type,
            size_bytes=len(image.content),
            width_pixels=image.width_pixels,
            height_pixels=image.height_pixels,
            expires_at=datetime.now(UTC),
        )
        await self._records.begin(record)
        try:
            await self._storage.put(record.key, image.content)
        except StorageFailed as error:
            logger.warning("image not stored", key=record.key, detail=str(error))
            raise _unavailable() from error
        stored = await self._records.finish(record, judged.digest)
        if stored is None:
            raise _unavailable()
        return stored

    async def violation(self, user_id: str, image_uri: str) -> FieldViolation | None:
        """Returns what is wrong with a reference to an image; keeps the image if nothing is.

        The caller has an hour to record the generation that refers to it.
        """
        if not image_uri.startswith(UPLOAD):
            return None
        if await self._records.keep(user_id, image_uri.removeprefix(UPLOAD)):
            return None
        rule = "must be an image that you uploaded and that is still stored; upload it again"
        return FieldViolation("image_uri", rule, "IMAGE_NOT_ACCEPTED")

    async def address(self, image_uri: str) -> ImageAddress | ImageGone | ImageAway:
        """Returns where the provider finds the image that a recorded request refers to."""
        if not image_uri.startswith(UPLOAD):
            return ImageAddress(image_uri)
        record = await self._records.find(image_uri.removeprefix(UPLOAD))
        if record is None:
            return ImageGone()
        try:
            if self._storage.is_public:
                return ImageAddress(self._storage.link(record.key, ADDRESS_S))
            if _is_copied(record):
                return ImageAddress(str(record.provider_url))
            async with self._copying:
                return await self._copy(record)
        except FileMissing:
            logger.error("image is missing", image_id=record.image_id, key=record.key)
            return ImageGone()
        except StorageFailed as error:
            return ImageAway(f"storage: {error}")

    async def _copy(self, record: ImageRecord) -> ImageAddress | ImageAway:
        """Hands an image to the provider, and notes where it is for the next time."""
        content = await self._storage.get(record.key)
        name = record.key.rpartition("/")[2]
        match await self._provider.upload_file(name, content, record.content_type):
            case Uploaded(url=url, expires_at=expires_at):
                await self._records.set_provider_copy(record.image_id, url, expires_at)
                return ImageAddress(url)
            case Unreachable(detail=detail):
                return ImageAway(f"the provider did not take it: {detail}")
            case unreachable:
                assert_never(unreachable)


def _is_copied(record: ImageRecord) -> bool:
    return (
        record.provider_expires_at is not None
        and record.provider_expires_at - COPY_LEFT > datetime.now(UTC)
    )


def _refusal(rule: str) -> InvalidRequest:
    return InvalidRequest([FieldViolation("content", rule, "IMAGE_NOT_ACCEPTED")])


def _unavailable() -> Unavailable:
    return Unavailable("STORAGE_UNAVAILABLE", "The image could not be stored; repeat the call.")
