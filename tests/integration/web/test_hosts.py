"""Requests are answered for this host's own names only: another one's page is no page of ours."""

from pathlib import Path

import httpx
import pytest

from tests.integration.web.studio import Studio, running_studio, web_settings


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


async def asked(studio: Studio, host: str) -> httpx.Response:
    return await (await studio.client()).get("/api/sign-in", headers={"Host": host})


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080"],
)
async def test_this_machine_s_names_are_known_on_a_loopback_address(
    tmp_path: Path, host: str
) -> None:
    async with running_studio(web_settings(tmp_path, public_url=None, sign_in=None)) as studio:
        assert (await asked(studio, host)).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:18080",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "unix:8080",
        "192.0.2.1",
        "[::1",
        "",
    ],
)
async def test_a_name_that_was_led_here_is_refused(tmp_path: Path, host: str) -> None:
    async with running_studio(web_settings(tmp_path, public_url=None, sign_in=None)) as studio:
        client = await studio.client(Host=host, Origin=f"http://{host}")

        signing_in = await client.post("/api/sign-in", json={"name": "ada"})

        assert code(signing_in) == code(await client.get("/")) == (421, "WRONG_HOST")
        assert "set-cookie" not in signing_in.headers


async def test_two_hosts_are_refused_if_one_is_foreign(lobby: Studio) -> None:
    client = await lobby.client()

    answer = await client.get("/", headers=[("Host", "localhost"), ("Host", "evil.example")])

    assert code(answer) == (421, "WRONG_HOST")


async def test_elsewhere_only_the_public_name_is_known(tmp_path: Path) -> None:
    settings = web_settings(
        tmp_path,
        address="0.0.0.0:8080",
        public_url="https://Studio.example",
        sign_in="secret",
        supabase_jwt_secret="x" * 32,
        jwt_issuer="https://issuer.example",
    )
    async with running_studio(settings) as studio:
        assert (await asked(studio, "studio.example")).status_code == 200
        assert (await asked(studio, "studio.example:443")).status_code == 200
        assert code(await asked(studio, "localhost")) == (421, "WRONG_HOST")
        assert code(await asked(studio, "10.0.0.7:8080")) == (421, "WRONG_HOST")


async def test_probes_may_come_under_any_name(lobby: Studio) -> None:
    client = await lobby.client(Host="10.0.0.7:8080")

    assert (await client.get("/healthz/live")).status_code == 200


@pytest.mark.parametrize(
    ("origin", "is_ours"),
    [
        ("http://studio.example", True),
        ("https://localhost:8080", True),
        ("http://localhost", False),
        ("http://localhost:8081", False),
        ("http://evil.example", False),
        ("https://studio.example", False),
        ("http://[", False),
        ("null", False),
        ("", False),
    ],
)
async def test_a_write_tells_of_no_foreign_page(studio: Studio, origin: str, is_ours: bool) -> None:
    browser = await studio.browser()
    headers = {"Host": "localhost:8080", "Origin": origin}

    came = await browser.post("/api/sign-in", json={"name": "eve"}, headers=headers)
    wrote = await browser.post("/api/generations/delete", json={}, headers=headers)
    read = await browser.get("/api/me", headers=headers)
    program = await studio.program()
    by_token = await program.post("/api/generations/delete", json={}, headers=headers)

    if is_ours:
        assert (came.status_code, wrote.status_code) == (200, 422)
    else:
        assert code(came) == code(wrote) == (403, "FOREIGN_PAGE")
    assert (read.status_code, by_token.status_code) == (200, 422)
