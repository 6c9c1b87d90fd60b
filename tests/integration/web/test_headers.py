"""Every answer carries what keeps a browser from being talked into anything."""

import re
from pathlib import Path

import httpx
import pytest

from tests.integration.web.studio import Studio, running_studio, web_settings

EVERYWHERE = {
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
ADDRESSES = ["/", "/api/me", "/api/sign-in", "/nothing", "/healthz/live", "/openapi.json", "/docs"]


@pytest.mark.parametrize("path", ADDRESSES)
async def test_every_answer_has_them(lobby: Studio, path: str) -> None:
    answer = await (await lobby.client()).get(path)

    assert EVERYWHERE.items() <= dict(answer.headers).items()
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
    assert "server" not in answer.headers
    assert len(answer.headers.get_list("content-security-policy")) == 1


@pytest.mark.parametrize("path", ["/api/me", "/api/sign-in", "/api/nothing"])
async def test_no_cache_keeps_answers_of_the_api(lobby: Studio, path: str) -> None:
    answer = await (await lobby.client()).get(path)

    assert answer.headers["cache-control"] == "no-store"


async def test_the_page_may_run_no_script_but_its_own(lobby: Studio) -> None:
    client = await lobby.client()

    page, docs = [(await client.get(path)).headers for path in ("/", "/docs")]

    assert "unsafe-inline" not in page["content-security-policy"]
    assert page["content-security-policy"].startswith("default-src 'self';")
    # The documentation's page has its script in it.
    assert "script-src 'self' 'unsafe-inline'" in docs["content-security-policy"]
    assert "frame-ancestors 'none'" in docs["content-security-policy"]


@pytest.mark.parametrize(
    ("media_url", "media_origins", "elsewhere"),
    [
        (None, "", ""),
        ("https://media.example:444/files", "", " https://media.example:444"),
        (None, "https://a.example, https://b.example", " https://a.example https://b.example"),
        ("https://a.example/x", "https://a.example", " https://a.example"),
    ],
)
async def test_the_page_may_show_media_from_where_they_are(
    tmp_path: Path, media_url: str | None, media_origins: str, elsewhere: str
) -> None:
    settings = web_settings(tmp_path, media_url=media_url, media_origins=media_origins)
    async with running_studio(settings) as studio:
        policy = (await (await studio.client()).get("/")).headers["content-security-policy"]

    assert f"; media-src 'self'{elsewhere};" in policy
    assert f"; img-src 'self' blob:{elsewhere};" in policy


async def test_the_documentation_loads_nothing_from_elsewhere(lobby: Studio) -> None:
    client = await lobby.client()

    docs = (await client.get("/docs")).text

    addresses = re.findall(r"""(?:src|href)=["']([^"']+)""", docs)
    assert addresses
    for address in addresses:
        assert address.startswith("/docs/files/")
        assert (await client.get(address)).status_code == 200
    assert "//" not in "".join(addresses)


async def test_two_requests_have_two_ids_and_nobody_chooses_theirs(lobby: Studio) -> None:
    client = await lobby.client(**{"X-Request-Id": "mine"})

    ids = {(await client.get("/healthz/live")).headers["x-request-id"] for _ in range(5)}

    assert len(ids) == 5
    assert "mine" not in ids


@pytest.mark.parametrize("path", ["/", "/healthz/live", "/openapi.json", "/api/sign-in", "/api/me"])
async def test_head_is_get_without_the_body(lobby: Studio, path: str) -> None:
    client = await lobby.client()
    got: httpx.Response = await client.get(path)

    head = await client.head(path)

    assert head.status_code == got.status_code
    assert head.content == b""
    assert head.headers["content-length"] == got.headers["content-length"]
    assert head.headers["content-type"] == got.headers["content-type"]


async def test_head_opens_no_stream(lobby: Studio) -> None:
    program = await lobby.program()

    answer = await program.head("/api/events")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"
    assert lobby.parts.limits.streams == 0
