"""Files of a local folder: shown to whoever has their address, whole or in parts."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from services.runtime.media import VALID_S, sign_media
from services.web.refusals import BrokenOff
from services.web.routes.media import CHUNK_BYTES
from services.web.settings import WebSettings
from tests.integration.web.backend import MEDIA_KEY, MEDIA_URL
from tests.integration.web.routes.api import Api, refused
from tests.integration.web.studio import running_studio, web_settings

KEY = "outputs/ada/4b7f6a52-5b05-4e1f-9d9c-2f60ff0c5a11.mp4"
CONTENT = bytes(range(256)) * 2500
"""More than two pieces of it."""


def address_of(key: str = KEY, at: datetime | None = None, signing_key: bytes = MEDIA_KEY) -> str:
    parts = urlsplit(sign_media(MEDIA_URL, key, signing_key, at or datetime.now(UTC)))
    return f"{parts.path}?{parts.query}"


@pytest.fixture
async def media_settings(tmp_path: Path) -> WebSettings:
    """A web service with files and nobody else to ask."""
    folder = tmp_path / "media"
    file = folder / KEY
    file.parent.mkdir(parents=True)
    file.write_bytes(CONTENT)
    (tmp_path / "secret.mp4").write_bytes(b"secret")
    return web_settings(tmp_path, storage_url=folder.as_uri(), media_url=MEDIA_URL)


async def fetch(
    settings_: WebSettings, *requests: tuple[str, str, dict[str, str]]
) -> list[httpx.Response]:
    async with running_studio(settings_) as studio:
        client = await studio.client()
        return [
            await client.request(method, address, headers=headers)
            for method, address, headers in requests
        ]


async def get(settings_: WebSettings, address: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return (await fetch(settings_, ("GET", address, named)))[0]


async def test_a_video_that_was_made_is_shown_whole_and_in_parts(api: Api) -> None:
    done = await api.reaches(await api.created(), "COMPLETED")
    video, still = (urlsplit(done[name]) for name in ("video_uri", "thumbnail_uri"))
    address = f"{video.path}?{video.query}"

    whole = await api.http.get(address)
    part = await api.http.get(address, headers={"Range": "bytes=4-7"})
    picture = await api.http.get(f"{still.path}?{still.query}")

    assert done["video_uri"].startswith(MEDIA_URL + "/")
    assert whole.status_code == 200
    assert whole.headers["Content-Type"] == "video/mp4"
    assert whole.content[4:8] == b"ftyp"
    assert (part.status_code, part.content) == (206, b"ftyp")
    assert part.headers["Content-Range"] == f"bytes 4-7/{len(whole.content)}"
    assert picture.headers["Content-Type"] == "image/jpeg"
    assert picture.content.startswith(b"\xff\xd8\xff")


async def test_a_file_is_sent_with_what_keeps_it_from_being_more(
    media_settings: WebSettings,
) -> None:
    answer = await get(media_settings, address_of())

    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["Content-Length"] == str(len(CONTENT))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert answer.headers["Content-Security-Policy"] == "sandbox"
    assert answer.headers["ETag"].startswith('"')
    assert answer.headers["Cache-Control"].startswith("private, max-age=")
    age_s = int(answer.headers["Cache-Control"].rpartition("=")[2])
    assert VALID_S - 5 <= age_s <= VALID_S + 900
    assert "Set-Cookie" not in answer.headers


async def test_head_says_what_get_would_and_sends_nothing(media_settings: WebSettings) -> None:
    got, headed, part, missing, unknown = await fetch(
        media_settings,
        ("GET", address_of(), {}),
        ("HEAD", address_of(), {}),
        ("HEAD", address_of(), {"Range": "bytes=1-3"}),
        ("HEAD", address_of("outputs/ada/none.mp4"), {}),
        ("HEAD", "/media/" + KEY, {}),
    )

    own = ("x-request-id",)
    assert headed.content == part.content == b""
    assert {n: v for n, v in headed.headers.items() if n not in own} == {
        n: v for n, v in got.headers.items() if n not in own
    }
    assert (part.status_code, part.headers["Content-Length"]) == (206, "3")
    assert (missing.status_code, missing.content) == (404, b"")
    assert (unknown.status_code, unknown.content) == (403, b"")


async def test_a_file_that_is_known_is_not_sent_again(media_settings: WebSettings) -> None:
    first = await get(media_settings, address_of())
    tag = first.headers["ETag"]

    same, ranged, other, continued, changed = await fetch(
        media_settings,
        ("GET", address_of(), {"If-None-Match": tag}),
        ("GET", address_of(), {"If-None-Match": tag, "Range": "bytes=0-1"}),
        ("GET", address_of(), {"If-None-Match": '"other"'}),
        ("GET", address_of(), {"If-Range": tag, "Range": "bytes=0-1"}),
        ("GET", address_of(), {"If-Range": '"other"', "Range": "bytes=0-1"}),
    )

    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)
    assert ranged.status_code == 304
    assert other.status_code == 200
    assert (continued.status_code, continued.content) == (206, CONTENT[:2])
    assert (changed.status_code, changed.content) == (200, CONTENT)


@pytest.mark.parametrize("is_replaced", [True, False])
async def test_a_file_is_read_piece_by_piece_and_broken_off_when_it_goes(
    media_settings: WebSettings, tmp_path: Path, is_replaced: bool
) -> None:
    file = tmp_path / "media" / KEY
    sent = bytearray()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            assert message["more_body"], "it has not come to its end"
            sent.extend(message["body"])
            file.unlink(missing_ok=True)
            if is_replaced:
                file.write_bytes(b"another" * 100_000)

    path, _, query = address_of().partition("?")
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost")],
    }
    with capture_logs() as lines:
        async with running_studio(media_settings) as studio:
            with pytest.raises(BrokenOff):
                await studio.app(scope, receive, send)  # type: ignore[arg-type]  # It is ASGI.

    assert bytes(sent) == CONTENT[:CHUNK_BYTES]
    assert [line["event"] for line in lines if line["log_level"] == "info"] == [
        "a file went away while it was sent"
    ]
    assert not [line for line in lines if line["log_level"] == "error"]


async def test_a_range_behind_the_end_is_refused(media_settings: WebSettings) -> None:
    answer = await get(media_settings, address_of(), Range=f"bytes={len(CONTENT)}-")

    refused(answer, 416, "RANGE_NOT_SATISFIABLE")
    assert answer.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


async def test_every_range_is_that_part_of_the_file(media_settings: WebSettings) -> None:
    outcomes: Counter[int] = Counter()
    wanted: list[str] = []
    size = len(CONTENT)
    places = st.one_of(
        st.integers(0, size + 10),
        st.sampled_from([0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, size - 1, size]),
    )

    @settings(
        max_examples=150,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.none() | places, st.none() | places)
    def collect(first: int | None, last: int | None) -> None:
        wanted.append(f"{'' if first is None else first}-{'' if last is None else last}")

    collect()
    async with running_studio(media_settings) as studio:
        client = await studio.client()
        for one in wanted:
            answer = await client.get(address_of(), headers={"Range": f"bytes={one}"})
            outcomes[answer.status_code] += 1
            expected = reference(one)
            assert answer.status_code == (200 if expected is None else 206 if expected else 416), (
                one
            )
            if expected:
                assert answer.content == expected
                named = answer.headers["Content-Range"].removeprefix("bytes ").partition("/")
                first, _, last = named[0].partition("-")
                assert CONTENT[int(first) : int(last) + 1] == answer.content
                assert named[2] == str(size)
            if expected is None:
                assert answer.content == CONTENT

    assert outcomes[206] > 50, outcomes
    assert outcomes[416] > 3, outcomes
    assert outcomes[200] > 10, outcomes


def reference(wanted: str) -> bytes | None:
    """The bytes of a range, none for one behind the end, None for what is no range."""
    first, _, last = wanted.partition("-")
    if not first:
        return CONTENT[-int(last) :] if last and int(last) else (b"" if last else None)
    if last and int(last) < int(first):
        return None
    return CONTENT[int(first) :][: int(last) + 1 - int(first)] if last else CONTENT[int(first) :]


async def test_an_address_that_is_not_ours_shows_nothing(media_settings: WebSettings) -> None:
    good = address_of()
    path, _, query = good.partition("?")
    forged = [
        path,
        f"{path}?",
        f"{good}&download=1",
        f"{path}?x=1&{query}",
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        address_of(signing_key=b"x" * 32),
        address_of("outputs/eve/other.mp4").partition("?")[0] + "?" + query,
        f"{path}?" + "&".join(reversed(query.split("&"))),
    ]

    answers = await fetch(media_settings, *(("GET", address, {}) for address in forged))

    for answer in answers:
        refused(answer, 403, "MEDIA_ADDRESS_BAD")


async def test_an_address_that_has_expired_says_so(media_settings: WebSettings) -> None:
    earlier = datetime.now(UTC) - timedelta(seconds=VALID_S + 901)

    refused(await get(media_settings, address_of(at=earlier)), 403, "MEDIA_ADDRESS_EXPIRED")


async def test_what_is_not_there_is_not_found(media_settings: WebSettings) -> None:
    refused(await get(media_settings, address_of("outputs/ada/none.mp4")), 404, "MEDIA_NOT_FOUND")


@pytest.mark.parametrize(
    "key",
    [
        "../secret.mp4",
        "outputs/../../secret.mp4",
        "outputs/ada/../../../secret.mp4",
        "outputs//ada",
        "outputs/ada",
        "outputs/ada/",
        "/etc/passwd",
        "..",
        ".",
        "outputs/ada/a\x00b",
        "outputs/%2e%2e/%2e%2e/secret.mp4",
        "outputs\\..\\..\\secret.mp4",
    ],
)
async def test_no_address_leads_out_of_the_folder_even_if_it_is_signed(
    media_settings: WebSettings, key: str
) -> None:
    query = address_of(key).partition("?")[2]
    ways = [
        "/media/" + key.replace("%", "%25").replace("\x00", "%00").replace("\\", "%5c"),
        "/media/" + "".join(f"%{byte:02x}" for byte in key.encode()),
    ]

    async with running_studio(media_settings) as studio:
        for way in ways:
            answer = await ask_raw(studio.app, way, query)
            assert answer["status"] in (403, 404), (way, answer)
            assert b"secret" not in answer["body"].replace(b"secret.mp4", b"")
            assert b"root:" not in answer["body"]


async def ask_raw(app: Any, path: str, query: str) -> dict[str, Any]:
    """Asks with a path that no client would send, since they all make it shorter."""
    answer: dict[str, Any] = {"status": 0, "body": b""}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": _unquoted(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 4711),
        "server": ("127.0.0.1", 80),
        "state": {},
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer["status"] = message["status"]
        else:
            answer["body"] += message.get("body", b"")

    await app(scope, receive, send)
    return answer


def _unquoted(path: str) -> str:
    from urllib.parse import unquote

    return unquote(path)


async def test_without_a_local_folder_there_are_no_files(tmp_path: Path) -> None:
    refused(await get(web_settings(tmp_path), address_of()), 404, "MEDIA_NOT_FOUND")
