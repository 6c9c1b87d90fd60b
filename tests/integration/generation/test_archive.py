"""Videos on their way from the provider into a real folder."""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from services.generation import archive as archive_module
from services.generation.archive import Archive, Archived, Gone, NotAVideo, Unreachable
from services.generation.state import Output
from services.runtime.storage import open_storage
from tests.integration.generation.raw_http import Heard, RawServer, Script, raw_server, reply
from tests.pictures import make_video

TOKEN = "r8_secret"
GENERATION_ID = "4b7f6a52-5b05-4e1f-9d9c-2f60ff0c5a11"
KEY = f"outputs/demo/{GENERATION_ID}.mp4"
STILL = f"thumbnails/demo/{GENERATION_ID}.jpg"
with tempfile.TemporaryDirectory() as _made:
    VIDEO = make_video(Path(_made) / "video.mp4")
OUTPUT = Output(KEY, len(VIDEO), hashlib.sha256(VIDEO).hexdigest(), 2.0, STILL)
HTML = b"<html><h1>Sign in</h1></html>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "media"


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(path))
    yield
    assert list(path.iterdir()) == [], "downloads were left lying about"


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server(reply(200, VIDEO)) as running:
        yield running


@pytest.fixture
async def archive(server: RawServer, folder: Path) -> AsyncIterator[Archive]:
    storage = open_storage(folder.as_uri())
    opened = Archive(storage, TOKEN, (server.origin,), call_s=5)
    yield opened
    await opened.close()
    storage.close()


def stored(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def save(archive: Archive, url: str) -> Archived | Gone | NotAVideo | Unreachable:
    return await archive.save("demo", GENERATION_ID, url)


async def test_a_video_is_stored_without_showing_the_token(
    archive: Archive, server: RawServer, folder: Path
) -> None:
    outcome = await save(archive, f"{server.origin}/out.mp4")

    assert outcome == Archived(OUTPUT)
    assert (folder / KEY).read_bytes() == VIDEO
    with Image.open(folder / STILL, formats=["JPEG"]) as still:
        assert still.size == (480, 277)
    assert [heard.path for heard in server.heard] == ["/out.mp4"]
    assert "authorization" not in server.heard[0].headers


async def test_saving_again_is_the_same_success(
    archive: Archive, server: RawServer, folder: Path
) -> None:
    url = f"{server.origin}/out.mp4"

    outcomes = await asyncio.gather(*(save(archive, url) for _ in range(4)))
    outcomes.append(await save(archive, url))

    assert outcomes == [Archived(OUTPUT)] * 5
    assert sorted(stored(folder)) == [folder / KEY, folder / STILL]
    assert (folder / KEY).read_bytes() == VIDEO


async def test_what_was_stored_just_before_its_process_died_is_found(
    archive: Archive, server: RawServer, folder: Path
) -> None:
    await save(archive, f"{server.origin}/out.mp4")
    (folder / STILL).unlink()
    server.script = reply(404, HTML)

    assert await save(archive, f"{server.origin}/out.mp4") == Archived(OUTPUT)
    assert (folder / STILL).is_file()
    other = await archive.save("eve", GENERATION_ID, f"{server.origin}/out.mp4")
    assert isinstance(other, Gone)


async def test_half_a_stored_video_is_none(
    archive: Archive, server: RawServer, folder: Path
) -> None:
    (folder / KEY).parent.mkdir(parents=True)
    (folder / KEY).write_bytes(VIDEO[: len(VIDEO) // 2])
    server.script = reply(404, HTML)

    assert isinstance(await save(archive, f"{server.origin}/out.mp4"), Gone)
    server.script = reply(200, VIDEO)
    assert await save(archive, f"{server.origin}/renewed.mp4") == Archived(OUTPUT)


@pytest.mark.parametrize("status", [401, 403])
async def test_the_token_is_shown_only_where_it_is_asked_for(
    archive: Archive, server: RawServer, status: int
) -> None:
    async def ask(heard: Heard, writer: asyncio.StreamWriter) -> None:
        known = heard.headers.get("authorization") == f"Bearer {TOKEN}"
        await (reply(200, VIDEO) if known else reply(status, HTML))(heard, writer)

    server.script = ask

    outcome = await save(archive, f"{server.origin}/out.mp4")

    assert outcome == Archived(OUTPUT)
    assert ["authorization" in heard.headers for heard in server.heard] == [False, True]


async def cut_chunks(_heard: Heard, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 Because\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.write(b"400\r\n" + VIDEO[:0x400] + b"\r\n")
    await writer.drain()
    writer.close()


async def hang_up(_heard: Heard, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (reply(404, HTML), Gone),
        (reply(410), Gone),
        (reply(401), Gone),
        (reply(403, HTML), Gone),
        (reply(500, HTML), Unreachable),
        (reply(429, HTML), Unreachable),
        (reply(206, VIDEO), Unreachable),
        (reply(200, VIDEO, cut_bytes=1), Unreachable),
        (cut_chunks, Unreachable),
        (hang_up, Unreachable),
        (reply(200, VIDEO, {"Content-Encoding": "gzip"}), Unreachable),
        (reply(200, HTML), NotAVideo),
        (reply(200, b""), NotAVideo),
        (reply(200, b"\0\0\0\x18fty"), NotAVideo),
        (reply(200, b"\0\0\0\x18ftypisom" + bytes(range(256)) * 4_000), NotAVideo),
        (reply(200, VIDEO[: len(VIDEO) // 2]), NotAVideo),
        (reply(200, VIDEO[:-1]), NotAVideo),
        (reply(200, VIDEO.replace(b"moov", b"wxyz")), NotAVideo),
        (reply(200, VIDEO.replace(b"trak", b"free")), NotAVideo),
        (reply(200, b"", {"Content-Length": str(2**40)}), NotAVideo),
    ],
)
async def test_what_does_not_bring_a_whole_video_stores_nothing(
    archive: Archive, server: RawServer, folder: Path, script: Script, expected: type
) -> None:
    server.script = script

    outcome = await save(archive, f"{server.origin}/out.mp4")

    assert isinstance(outcome, expected), outcome
    assert stored(folder) == []


async def test_a_video_is_recognized_however_its_bytes_are_dealt(
    archive: Archive, server: RawServer
) -> None:
    async def deal(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 200 Because\r\nContent-Length: {len(VIDEO)}\r\n\r\n"
        writer.write(head.encode())
        for byte in VIDEO[:12]:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.002)
        writer.write(VIDEO[12:])

    server.script = deal

    assert await save(archive, f"{server.origin}/out.mp4") == Archived(OUTPUT)


@pytest.mark.parametrize("announced", [True, False])
async def test_a_video_above_the_limit_is_refused(
    archive: Archive,
    server: RawServer,
    monkeypatch: pytest.MonkeyPatch,
    announced: bool,
) -> None:
    monkeypatch.setattr(archive_module, "OUTPUT_BYTES_MAX", len(VIDEO) - 1)

    async def until_closed(_heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 Because\r\n\r\n" + VIDEO)
        await writer.drain()
        writer.close()

    server.script = reply(200, VIDEO) if announced else until_closed

    outcome = await save(archive, f"{server.origin}/out.mp4")
    monkeypatch.setattr(archive_module, "OUTPUT_BYTES_MAX", len(VIDEO))
    at_the_limit = await save(archive, f"{server.origin}/out.mp4")

    assert isinstance(outcome, NotAVideo)
    assert at_the_limit == Archived(OUTPUT)


async def test_a_redirect_is_not_followed(
    archive: Archive, server: RawServer, folder: Path
) -> None:
    async with raw_server(reply(200, VIDEO)) as elsewhere:
        server.script = reply(302, b"", {"Location": f"{elsewhere.origin}/out.mp4"})

        outcome = await save(archive, f"{server.origin}/out.mp4")

        assert isinstance(outcome, Unreachable)
        assert elsewhere.connections == 0
        assert stored(folder) == []


async def test_where_nobody_listens_it_is_tried_again_later(folder: Path) -> None:
    async with raw_server(reply(200, VIDEO)) as gone:
        origin = gone.origin
    storage = open_storage(folder.as_uri())
    archive = Archive(storage, TOKEN, (origin,), call_s=5)

    outcome = await save(archive, f"{origin}/out.mp4")

    await archive.close()
    storage.close()
    assert isinstance(outcome, Unreachable)


async def test_a_storage_that_fails_is_tried_again_later(
    archive: Archive, server: RawServer, folder: Path
) -> None:
    (folder / "outputs").write_text("in the way")

    outcome = await save(archive, f"{server.origin}/out.mp4")

    assert isinstance(outcome, Unreachable)
    assert "storage" in outcome.detail


async def test_a_thumbnail_that_cannot_be_stored_fails_nothing(
    archive: Archive, server: RawServer, folder: Path
) -> None:
    (folder / "thumbnails").write_text("in the way")

    outcome = await save(archive, f"{server.origin}/out.mp4")

    assert outcome == Archived(replace(OUTPUT, thumbnail_key=None))
    assert (folder / KEY).read_bytes() == VIDEO


async def test_a_video_whose_pictures_cannot_be_decoded_has_no_thumbnail(
    archive: Archive, server: RawServer
) -> None:
    start = VIDEO.index(b"mdat") + 4
    length = int.from_bytes(VIDEO[start - 8 : start - 4]) - 8
    damaged = VIDEO[:start] + b"\xff" * length + VIDEO[start + length :]
    server.script = reply(200, damaged)

    outcome = await save(archive, f"{server.origin}/out.mp4")

    assert isinstance(outcome, Archived)
    assert outcome.output.thumbnail_key is None
    assert outcome.output.video_seconds == 2.0


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:{port}/out.mp4",
        "https://127.0.0.1:{port}/out.mp4",
        "http://127.0.0.1:{port}@evil.example/out.mp4",
        "http://evil.example@127.0.0.1:{port}/out.mp4",
        "http://replicate.delivery/out.mp4",
        "https://replicate.delivery.evil.example/out.mp4",
        "https://evil-replicate.delivery/out.mp4",
        "https://replicate.delivery@evil.example/out.mp4",
        "https://replicate.com/out.mp4",
        "https://replicate.delivery:99999/out.mp4",
        "https://replicate.delivery:8443/out.mp4",
        "https://evil.example\\.replicate.delivery/out.mp4",
        "https://evil.example;.replicate.delivery/out.mp4",
        "https://evil_.replicate.delivery/out.mp4",
        "https://evil.example%2f.replicate.delivery/out.mp4",
        "https://replicate.delivery:port/out.mp4",
        "https://replicate.delivery/out\x00.mp4",
        "https://[::1/out.mp4",
        "http://plain.example/out.mp4",
        "file:///etc/passwd",
        "data:video/mp4;base64,AAAA",
        "",
    ],
)
async def test_no_other_host_is_asked(server: RawServer, folder: Path, url: str) -> None:
    storage = open_storage(folder.as_uri())
    # An origin beyond this machine is believed by https only.
    archive = Archive(storage, TOKEN, (server.origin, "http://plain.example"), call_s=5)

    outcome = await save(archive, url.format(port=server.port))

    await archive.close()
    storage.close()
    assert isinstance(outcome, NotAVideo)
    assert server.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "https://replicate.delivery/xezq/out.mp4",
        "https://xezq.replicate.delivery/out.mp4",
        "https://api.replicate.com/v1/files/x/download",
        "HTTPS://Replicate.Delivery/out.mp4",
        "https://replicate.delivery:443/out.mp4",
    ],
)
async def test_the_provider_s_own_hosts_are_asked(archive: Archive, url: str) -> None:
    assert archive._may_fetch(url)


async def test_a_named_origin_of_this_network_is_asked_in_plaintext(folder: Path) -> None:
    storage = open_storage(folder.as_uri())
    archive = Archive(storage, TOKEN, ("http://simulator:8091",), call_s=5)

    assert archive._may_fetch("http://simulator:8091/xezq/out.mp4")
    assert not archive._may_fetch("http://simulator:8092/xezq/out.mp4")
    assert not archive._may_fetch("http://another:8091/xezq/out.mp4")
    await archive.close()
    storage.close()
