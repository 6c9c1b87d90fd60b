"""Files in a real folder."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.runtime.storage import Storage, StorageFailed, open_storage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a new folder" / "100% ours"


@pytest.fixture
async def storage(folder: Path) -> AsyncIterator[Storage]:
    opened = open_storage(folder.as_uri())
    yield opened
    opened.close()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# Above 5 MiB obstore stores in parts, unless a key may be created only once.
@pytest.mark.parametrize("size_bytes", [0, 1, 6 * 1024 * 1024])
async def test_a_file_is_stored_under_its_key(
    storage: Storage, folder: Path, tmp_path: Path, size_bytes: int
) -> None:
    file = tmp_path / "video.mp4"
    file.write_bytes(b"v" * size_bytes)

    assert await storage.put_new("outputs/u/g.mp4", file)

    kept = folder / "outputs/u/g.mp4"
    assert kept.read_bytes() == file.read_bytes()
    assert storage.link("outputs/u/g.mp4") == kept.as_uri()
    assert files(folder) == [kept]


async def test_a_key_is_written_once_and_never_changed(
    storage: Storage, folder: Path, tmp_path: Path
) -> None:
    contents = [bytes([n]) * 100_000 for n in range(8)]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.mp4").write_bytes(content)

    stored = await asyncio.gather(
        *(storage.put_new("outputs/u/g.mp4", tmp_path / f"{n}.mp4") for n in range(8))
    )
    again = await storage.put_new("outputs/u/g.mp4", tmp_path / "0.mp4")

    assert sorted(stored) == [False] * 7 + [True]
    assert not again
    assert (folder / "outputs/u/g.mp4").read_bytes() == contents[stored.index(True)]
    assert files(folder) == [folder / "outputs/u/g.mp4"]


async def test_a_storage_that_does_not_take_a_file_says_so(
    storage: Storage, folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "video.mp4"
    file.write_bytes(b"v")
    (folder / "outputs").write_text("in the way")

    with pytest.raises(StorageFailed):
        await storage.put_new("outputs/u/g.mp4", file)
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
    ],
)
def test_an_address_that_is_no_storage_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(ValueError) as refused:
        open_storage(url)

    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200
