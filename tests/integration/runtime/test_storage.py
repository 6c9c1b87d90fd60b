"""Files in a real folder, and in a real object storage."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from services.runtime import storage as storage_module
from services.runtime.storage import (
    FileChanged,
    FileMissing,
    Storage,
    StorageFailed,
    open_storage,
)
from tests.object_storage import ObjectStorage

PART_BYTES = storage_module.PART_BYTES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a new folder" / "100% ours"


@pytest.fixture
async def storage(folder: Path) -> AsyncIterator[Storage]:
    opened = open_storage(folder.as_uri())
    yield opened
    opened.close()


@pytest.fixture
def keys(object_storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in object_storage.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
async def bucket(object_storage: ObjectStorage, keys: None) -> AsyncIterator[Storage]:
    del keys
    opened = open_storage(object_storage.url(f"media-{uuid.uuid4().hex}"))
    yield opened
    opened.close()


async def test_the_key_of_a_bucket_can_be_handed_in(object_storage: ObjectStorage) -> None:
    key = ":".join(object_storage.environment.values())
    opened = open_storage(object_storage.url(f"media-{uuid.uuid4().hex}"), access_key=key)
    try:
        await opened.put("a.mp4", b"video")

        assert await opened.get("a.mp4") == b"video"
        async with httpx.AsyncClient() as client:
            assert (await client.get(opened.link("a.mp4"))).content == b"video"
    finally:
        opened.close()


@pytest.fixture(params=["folder", "bucket"])
def either(request: pytest.FixtureRequest) -> Storage:
    """The same behavior is expected of both."""
    name = "storage" if request.param == "folder" else "bucket"
    opened: Storage = request.getfixturevalue(name)
    return opened


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# What is larger than a part is stored in several.
@pytest.mark.parametrize("size_bytes", [0, 1, 2 * PART_BYTES + 1])
async def test_a_file_is_stored_under_its_key(
    either: Storage, tmp_path: Path, size_bytes: int
) -> None:
    file = tmp_path / "video.mp4"
    file.write_bytes(b"v" * size_bytes)

    first = await either.put_new("outputs/u/g.mp4", file)
    again = await either.put_new("outputs/u/g.mp4", file)

    assert (first, again) == (True, False)
    assert await either.get("outputs/u/g.mp4") == file.read_bytes()


async def test_a_key_is_written_once_and_never_changed(either: Storage, tmp_path: Path) -> None:
    contents = [bytes([n]) * 100_000 for n in range(8)]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.mp4").write_bytes(content)

    stored = await asyncio.gather(
        *(either.put_new("outputs/u/g.mp4", tmp_path / f"{n}.mp4") for n in range(8))
    )
    again = await either.put_new("outputs/u/g.mp4", tmp_path / "0.mp4")

    assert sorted(stored) == [False] * 7 + [True]
    assert not again
    assert await either.get("outputs/u/g.mp4") == contents[stored.index(True)]


async def test_bytes_are_stored_in_place_of_others(either: Storage) -> None:
    await either.put("inputs/u/i.png", b"first")
    await either.put("inputs/u/i.png", b"second")

    assert await either.get("inputs/u/i.png") == b"second"


async def test_what_is_deleted_is_gone_and_deleting_again_is_the_same_success(
    either: Storage,
) -> None:
    await either.put("a/b.jpg", b"x")
    await either.put("a/c.jpg", b"y")

    await either.delete("a/b.jpg")
    await either.delete("a/b.jpg")
    await either.delete("never/was.jpg")

    with pytest.raises(FileMissing):
        await either.get("a/b.jpg")
    assert await either.get("a/c.jpg") == b"y"


async def test_parts_of_a_file_are_read_as_they_are_asked_for(either: Storage) -> None:
    content = bytes(range(256)) * 300
    await either.put("outputs/u/g.mp4", content)

    stored = await either.stat("outputs/u/g.mp4")
    parts = {
        (start, end): await either.get_range("outputs/u/g.mp4", start, end, stored.tag)
        for start, end in ((0, 1), (0, len(content)), (255, 513), (len(content) - 1, len(content)))
    }

    assert stored.size_bytes == len(content)
    assert parts == {(start, end): content[start:end] for start, end in parts}


async def test_a_file_keeps_its_tag_until_it_is_another(either: Storage) -> None:
    await either.put("a.jpg", b"first")
    first = await either.stat("a.jpg")
    again = await either.stat("a.jpg")
    await either.put("a.jpg", b"other")
    other = await either.stat("a.jpg")

    assert first == again
    assert other.tag != first.tag
    assert first.tag.isascii()
    assert '"' not in first.tag
    assert await either.get_range("a.jpg", 0, 5, other.tag) == b"other"
    with pytest.raises(FileChanged):
        await either.get_range("a.jpg", 0, 5, first.tag)


async def test_what_is_not_there_has_no_parts(either: Storage) -> None:
    await either.put("a.jpg", b"x")
    tag = (await either.stat("a.jpg")).tag
    await either.delete("a.jpg")

    with pytest.raises(FileMissing):
        await either.stat("a.jpg")
    with pytest.raises(FileMissing):
        await either.get_range("a.jpg", 0, 1, tag)


@pytest.mark.parametrize("key", ["../secret", "a/../../secret", "a//b", "a\0b", "..", "a", "a/"])
async def test_no_key_leads_out_of_a_folder(storage: Storage, folder: Path, key: str) -> None:
    await storage.put("a/b", b"x")
    (folder.parent / "secret").write_text("secret")

    with pytest.raises(FileMissing):
        await storage.stat(key)


async def test_a_folder_holds_files_by_their_keys(storage: Storage, folder: Path) -> None:
    await storage.put("outputs/u/g.mp4", b"v")

    kept = folder / "outputs/u/g.mp4"
    assert files(folder) == [kept]
    assert storage.link("outputs/u/g.mp4") == kept.as_uri()
    assert not storage.is_public


async def test_a_storage_that_does_not_take_a_file_says_so(
    storage: Storage, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "video.mp4"
    file.write_bytes(b"v")
    (folder / "outputs").write_text("in the way")

    with pytest.raises(StorageFailed):
        await storage.put_new("outputs/u/g.mp4", file)
    with pytest.raises(StorageFailed):
        await storage.put("outputs/u/g.jpg", b"x")
    with pytest.raises(StorageFailed):
        await storage.put_new("other/u/g.mp4", tmp_path / "missing.mp4")


async def test_what_is_stored_is_found_after_opening_again(
    storage: Storage, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "video.mp4"
    file.write_bytes(b"v")
    await storage.put_new("g.mp4", file)

    again = open_storage(folder.as_uri() + "/")

    assert not await again.put_new("g.mp4", file)
    assert again.link("g.mp4") == storage.link("g.mp4")
    again.close()


async def test_a_signed_address_shows_one_file_of_a_bucket_and_no_other(bucket: Storage) -> None:
    await bucket.put("outputs/u/mine.mp4", b"video")
    await bucket.put("outputs/u/other.mp4", b"secret")

    link = bucket.link("outputs/u/mine.mp4")

    async with httpx.AsyncClient(trust_env=False) as client:
        shown = await client.get(link)
        assert (shown.status_code, shown.content) == (200, b"video")
        assert shown.headers["Content-Type"] == "video/mp4"
        for forged in (
            link.replace("mine", "other"),
            link.partition("?")[0],
            link[:-8] + "00000000",
            link.replace("X-Amz-Expires=", "X-Amz-Expires=1"),
        ):
            assert (await client.get(forged)).status_code == 403


async def test_a_file_keeps_its_address_for_a_while_and_lives_under_a_prefix(
    bucket: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_700_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])

    first = bucket.link("a.mp4")
    now[0] += storage_module.LINK_STEP_S - 1_700_000_000 % storage_module.LINK_STEP_S - 1
    same = bucket.link("a.mp4")

    assert "/a.mp4?" in first
    assert same is first
    assert bucket.link("a.mp4", valid_s=7200) is not first
    now[0] += 1
    assert bucket.link("a.mp4") is not first


@pytest.mark.parametrize(
    ("options", "is_public"),
    [
        ("", True),
        ("?endpoint=https://s3.example", True),
        ("?endpoint=http://minio.internal:9000&region=eu-central-1", False),
        ("?endpoint=https://minio.internal&public=no", False),
        ("?endpoint=http://203.0.113.1:9000&public=yes", True),
    ],
)
def test_a_bucket_is_public_unless_its_endpoint_is_plain_or_the_address_says_so(
    options: str, is_public: bool
) -> None:
    storage = open_storage(f"s3://bucket/prefix{options}")

    assert storage.is_public is is_public
    storage.close()


async def hold(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.mark.usefixtures("keys")
async def test_a_storage_that_never_answers_fails_in_bounded_time(tmp_path: Path) -> None:
    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    storage = open_storage(f"s3://bucket?endpoint=http://127.0.0.1:{port}", call_s=0.3)
    (tmp_path / "a.mp4").write_bytes(b"v")
    began = time.monotonic()

    for call in (
        storage.put("a", b"x"),
        storage.get("a"),
        storage.delete("a"),
        storage.put_new("a.mp4", tmp_path / "a.mp4"),
        storage.stat("a"),
        storage.get_range("a", 0, 1, "tag"),
    ):
        with pytest.raises(StorageFailed) as failed:
            await call
        assert "\n" not in str(failed.value)
        assert len(str(failed.value)) < 400

    assert time.monotonic() - began < 20
    storage.close()
    server.close()


@pytest.mark.usefixtures("keys")
async def test_a_storage_that_is_away_fails() -> None:
    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    storage = open_storage(f"s3://bucket?endpoint=http://127.0.0.1:{port}", call_s=1.0)

    with pytest.raises(StorageFailed):
        await storage.put("a", b"x")

    storage.close()


async def test_wrong_keys_fail_without_being_told(
    object_storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "reelworks")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "somebody-elses")
    storage = open_storage(object_storage.url("media"))

    with pytest.raises(StorageFailed) as failed:
        await storage.put("a", b"x")

    assert "somebody-elses" not in str(failed.value)
    storage.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/absolute/folder",
        "relative",
        "file:relative",
        "file://host/folder",
        "file:///dev/null/folder",
        "ftp://example.com/folder",
        "https://example.com/folder",
        "s3://",
        "s3://key:secret@bucket",
        "s3://bucket:9000",
        "s3://bucket?endpoint=minio:9000",
        "s3://bucket?public=maybe",
        "s3://bucket?secret_access_key=secret",
    ],
)
def test_an_address_that_is_no_storage_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(ValueError) as refused:
        open_storage(url)

    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200
    assert "secret@" not in str(refused.value)
