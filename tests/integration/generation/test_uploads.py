"""Images from their upload to the provider, on both databases and both kinds of storage."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from services.generation import tables
from services.generation import uploads as uploads_module
from services.generation.image_records import STORING, UPLOAD, ImageRecord, ImageRecords
from services.generation.replicate import Replicate
from services.generation.uploads import ImageAddress, ImageAway, ImageGone, Uploads
from services.runtime.errors import InvalidRequest, Unavailable
from services.runtime.storage import Storage, open_storage
from tests.integration.generation.harness import USER, Replica
from tests.integration.generation.raw_http import RawServer, raw_server, reply
from tests.object_storage import ObjectStorage
from tests.pictures import make_picture

PICTURE = make_picture("JPEG")
COPY = "https://api.replicate.com/v1/files/abc"


def uploaded(left: timedelta = timedelta(hours=24)) -> dict[str, object]:
    """How the provider answers a file."""
    expires_at = (datetime.now(UTC) + left).isoformat()
    return {"id": "abc", "urls": {"get": COPY}, "expires_at": expires_at}


@dataclass
class Media:
    """Uploads, and what a test sees behind them."""

    uploads: Uploads
    records: ImageRecords
    storage: Storage
    provider: RawServer
    replica: Replica

    async def take(self, user_id: str, content: bytes) -> ImageRecord:
        image = await self.uploads.judge(user_id, content)
        return image if isinstance(image, ImageRecord) else await self.uploads.store(image)

    async def rows(self) -> list[dict[str, object]]:
        return await self.replica.rows(tables.images)

    async def change(self, **values: object) -> None:
        async with self.replica.database.write() as connection:
            await connection.execute(update(tables.images).values(**values))


@pytest.fixture
def storage_url(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A bucket beside SQLite and a folder beside PostgreSQL: neither depends on the other."""
    if backend == "postgresql":
        return (tmp_path / "media").as_uri()
    server: ObjectStorage = request.getfixturevalue("object_storage")
    keys: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    for name, value in server.environment.items():
        keys.setenv(name, value)
    return server.url(uuid.uuid4().hex)


@pytest.fixture
async def media(replica: Replica, storage_url: str) -> AsyncIterator[Media]:
    async with opened_media(replica, storage_url) as opened:
        yield opened


@contextlib.asynccontextmanager
async def opened_media(replica: Replica, storage_url: str) -> AsyncIterator[Media]:
    storage = open_storage(storage_url)
    async with raw_server(reply(201, uploaded())) as server:
        provider = Replicate("r8_token", server.origin, 5.0)
        records = ImageRecords(replica.database)
        uploads = Uploads(records, storage, provider)
        try:
            yield Media(uploads, records, storage, server, replica)
        finally:
            await provider.close()
            storage.close()


async def test_an_image_is_stored_anew_and_can_be_referred_to_by_its_user_only(
    media: Media,
) -> None:
    record = await media.take(USER, PICTURE)

    stored = await media.storage.get(record.key)
    assert record.key == f"inputs/{USER}/{record.image_id}.jpg"
    assert (len(stored), "image/jpeg") == (record.size_bytes, record.content_type)
    assert stored.startswith(b"\xff\xd8\xff")
    day = timedelta(hours=24)
    assert day - timedelta(minutes=2) < record.expires_at - datetime.now(UTC) <= day
    uri = f"{UPLOAD}{record.image_id}"
    assert await media.uploads.violation(USER, uri) is None
    assert await media.uploads.violation(USER, "") is None
    assert await media.uploads.violation(USER, "https://example.com/cat.png") is None
    for user_id, image_uri in (("eve", uri), (USER, f"{UPLOAD}{uuid.uuid4()}")):
        violation = await media.uploads.violation(user_id, image_uri)
        assert violation is not None
        assert (violation.field, violation.reason) == ("image_uri", "IMAGE_NOT_ACCEPTED")


async def test_the_same_image_of_one_user_is_one_image_whose_time_begins_anew(
    media: Media,
) -> None:
    first = await media.take(USER, PICTURE)
    await media.change(expires_at=datetime.now(UTC) + timedelta(minutes=5))

    together = await asyncio.gather(*(media.take(USER, PICTURE) for _ in range(3)))
    other = await media.take("eve", PICTURE)

    assert {record.image_id for record in together} == {first.image_id}
    assert all(r.expires_at - datetime.now(UTC) > timedelta(hours=23) for r in together)
    assert other.image_id != first.image_id
    assert len(await media.rows()) == 2


async def test_of_the_same_image_uploaded_at_once_all_get_one(media: Media) -> None:
    records = await asyncio.gather(*(media.take(USER, PICTURE) for _ in range(2)))

    chosen = {record.image_id for record in records}
    assert len(chosen) == 1
    # The files that came second are cleared away like whatever else is left behind.
    await media.change(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    left = {record.image_id for record in await media.records.claim_expired(10)}
    assert chosen <= left
    assert len(left) == len(await media.rows())


async def test_an_image_asked_for_is_kept_for_an_hour_but_never_for_less(media: Media) -> None:
    record = await media.take(USER, PICTURE)
    uri = f"{UPLOAD}{record.image_id}"
    now = datetime.now(UTC)

    await media.uploads.violation(USER, uri)
    (unchanged,) = await media.rows()
    await media.change(expires_at=now - timedelta(days=1))
    assert await media.uploads.violation(USER, uri) is None
    (kept,) = await media.rows()

    assert unchanged["expires_at"] == record.expires_at
    assert isinstance(kept["expires_at"], datetime)
    assert timedelta(minutes=58) < kept["expires_at"] - now < timedelta(minutes=62)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_what_is_no_image_leaves_nothing(media: Media) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await media.take(USER, b"GIF89a")

    assert refused.value.reason == "IMAGE_NOT_ACCEPTED"
    assert [violation.field for violation in refused.value.violations] == ["content"]
    assert await media.rows() == []


async def test_unused_images_of_a_user_are_limited(
    media: Media, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads_module, "UNUSED_MAX", 2)
    pictures = [make_picture("PNG", (80, 80 + n)) for n in range(3)]
    for picture in pictures[:2]:
        await media.take(USER, picture)

    with pytest.raises(InvalidRequest) as refused:
        await media.take(USER, pictures[2])
    known = await media.take(USER, pictures[0])
    others = await media.take("eve", pictures[2])

    assert "must wait" in refused.value.violations[0].rule
    assert known.user_id == USER
    assert others.user_id == "eve"


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_while_storage_is_away_an_upload_can_be_repeated(
    replica: Replica, object_storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_storage.environment.items():
        monkeypatch.setenv(name, value)
    url = object_storage.url("away")
    async with opened_media(replica, "s3://x?endpoint=http://127.0.0.1:1") as away:
        began = time.monotonic()
        with pytest.raises(Unavailable) as unavailable:
            await away.take(USER, PICTURE)
        assert unavailable.value.reason == "STORAGE_UNAVAILABLE"
        assert time.monotonic() - began < 30

    async with opened_media(replica, url) as back:
        record = await back.take(USER, PICTURE)
        assert await back.storage.get(record.key)
        # Nobody can refer to what was begun in vain, and its time is short.
        (begun,) = [row for row in await back.rows() if row["image_id"] != record.image_id]
        assert await back.uploads.violation(USER, f"{UPLOAD}{begun['image_id']}") is not None
        assert isinstance(begun["expires_at"], datetime)
        assert begun["expires_at"] - datetime.now(UTC) <= STORING


async def test_an_image_whose_storing_was_given_up_is_not_brought_back(media: Media) -> None:
    record = await media.take(USER, PICTURE)
    await media.change(
        sha256=record.image_id, created_at=datetime.now(UTC) - STORING - timedelta(seconds=1)
    )

    assert await media.records.finish(record, "0" * 64) is None


async def test_the_provider_gets_a_copy_where_it_cannot_reach_our_storage(media: Media) -> None:
    record = await media.take(USER, PICTURE)
    uri = f"{UPLOAD}{record.image_id}"

    first = await media.uploads.address(uri)
    again = await media.uploads.address(uri)

    assert first == again == ImageAddress(COPY)
    (heard,) = media.provider.heard
    assert heard.path == "/v1/files"
    assert await media.storage.get(record.key) in heard.body
    assert b"image/jpeg" in heard.body
    assert heard.headers["authorization"] == "Bearer r8_token"


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("left", [timedelta(hours=1, minutes=59), timedelta(hours=2, minutes=1)])
async def test_a_copy_that_soon_goes_is_made_again(media: Media, left: timedelta) -> None:
    record = await media.take(USER, PICTURE)
    media.provider.script = reply(201, uploaded(left))

    for _ in range(2):
        await media.uploads.address(f"{UPLOAD}{record.image_id}")

    assert len(media.provider.heard) == (2 if left < timedelta(hours=2) else 1)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_an_address_of_the_caller_is_handed_on_as_it_is(media: Media) -> None:
    assert await media.uploads.address("https://a.b/c.png") == ImageAddress("https://a.b/c.png")
    assert media.provider.heard == []


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_provider_that_takes_no_file_is_asked_again_later(media: Media) -> None:
    record = await media.take(USER, PICTURE)
    media.provider.script = reply(500, b"<html>")

    away = await media.uploads.address(f"{UPLOAD}{record.image_id}")
    media.provider.script = reply(201, uploaded())
    back = await media.uploads.address(f"{UPLOAD}{record.image_id}")

    assert isinstance(away, ImageAway)
    assert back == ImageAddress(COPY)


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_an_image_that_is_no_more_is_gone_for_good(media: Media) -> None:
    record = await media.take(USER, PICTURE)
    await media.storage.delete(record.key)

    assert await media.uploads.address(f"{UPLOAD}{record.image_id}") == ImageGone()
    assert await media.uploads.address(f"{UPLOAD}{uuid.uuid4()}") == ImageGone()


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_the_provider_gets_an_address_of_storage_that_it_can_reach(
    replica: Replica, object_storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_storage.environment.items():
        monkeypatch.setenv(name, value)
    url = object_storage.url("public", "&public=yes")
    async with opened_media(replica, url) as media, httpx.AsyncClient(trust_env=False) as client:
        record = await media.take(USER, PICTURE)
        address = await media.uploads.address(f"{UPLOAD}{record.image_id}")
        assert isinstance(address, ImageAddress)

        fetched = await client.get(address.url)

        assert fetched.headers["Content-Type"] == "image/jpeg"
        assert fetched.content == await media.storage.get(record.key)
        assert media.provider.heard == []
        (expires,) = [p for p in address.url.split("&") if p.startswith("X-Amz-Expires=")]
        assert int(expires.partition("=")[2]) >= 2 * 3600
