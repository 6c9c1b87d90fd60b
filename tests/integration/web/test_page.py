"""The page and its files: addresses, caching, and what browsers are told of their content."""

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from services.web.routes.page import PLACE, read_page
from tests.integration.web.studio import running_studio, web_settings


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody at a studio behind which no service runs: the page itself needs none."""
    async with running_studio(web_settings(tmp_path)) as studio:
        yield await studio.client()


@pytest.mark.parametrize("path", ["/", "/history", "/statement", "/settings"])
async def test_each_view_is_the_page_and_never_kept(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert PLACE not in answer.text
    assert answer.text.count('rel="modulepreload"') > 8


async def test_a_file_is_kept_for_ever_under_the_hash_of_all(client: httpx.AsyncClient) -> None:
    (path,) = re.findall(r'href="(/static/[^"]+\.css)"', (await client.get("/")).text)

    answer = await client.get(path)

    assert path.split("/")[2] == read_page().static.folder_hash
    assert answer.headers["content-type"] == "text/css; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    again = await client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    ("file", "content_type"),
    [
        ("js/main.js", "text/javascript; charset=utf-8"),
        ("app.webmanifest", "application/manifest+json"),
        ("icons/icon.svg", "image/svg+xml"),
        ("icons/icon-192.png", "image/png"),
    ],
)
async def test_each_kind_of_file_is_called_what_it_is(
    client: httpx.AsyncClient, file: str, content_type: str
) -> None:
    path = f"/static/{read_page().static.folder_hash}/{file}"

    answer = await client.get(path)

    assert answer.headers["content-type"] == content_type


async def test_a_file_without_an_ending_is_served_too(
    client: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "static"
    folder.mkdir()
    (folder / "LICENSE").write_text("Do what you like.")
    (folder / "index.html").write_text('<a href="/static/current/LICENSE">License</a>')
    monkeypatch.setattr("services.web.routes.page.resources.files", lambda _: tmp_path)
    read_page.cache_clear()
    try:
        (path,) = re.findall(r'href="([^"]+)"', (await client.get("/")).text)

        answer = await client.get(path)
    finally:
        read_page.cache_clear()

    assert answer.text == "Do what you like."
    assert answer.headers["content-type"] == "application/octet-stream"


async def test_a_page_that_cannot_be_served_ends_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.web.routes.page.resources.files", lambda _: tmp_path)
    read_page.cache_clear()
    try:
        with pytest.raises(FileNotFoundError):
            async with running_studio(web_settings(tmp_path)):
                pass
    finally:
        read_page.cache_clear()


async def test_who_cannot_unpack_gets_the_file_as_it_is(client: httpx.AsyncClient) -> None:
    path = f"/static/{read_page().static.folder_hash}/app.css"
    plain = await client.get(path, headers={"Accept-Encoding": "identity"})

    packed = await client.get(path, headers={"Accept-Encoding": "br, gzip"})

    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert packed.content == plain.content
    assert len(gzip.compress(plain.content)) < len(plain.content) / 3


@pytest.mark.parametrize(
    "path",
    ["/static/0123456789abcdef/app.css", "/static/current/app.css", "/static/{}/no.js",
     "/static/{}/../index.html", "/static/{}/js", "/static/{}/index.html", "/elsewhere"],
)  # fmt: skip
async def test_what_is_not_there_is_a_problem_and_no_page(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.get(path.format(read_page().static.folder_hash))

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
