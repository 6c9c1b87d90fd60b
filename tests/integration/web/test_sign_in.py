"""People sign in by a name, a password or a token, and their session is a cookie of the page."""

import asyncio
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from pathlib import Path

import httpx
import pytest

from tests.integration.generation.credits_service import CreditsService
from tests.integration.web.issuer import ANON_KEY, PASSWORD, Issuer, running_issuer
from tests.integration.web.studio import Studio, running_studio, web_settings

COOKIE = "reelworks_session"


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with running_issuer() as running:
        yield running


@pytest.fixture
async def supabase_studio(
    tmp_path: Path, issuer: Issuer, credits_service: CreditsService
) -> AsyncIterator[Studio]:
    settings = web_settings(
        tmp_path,
        credits_address=credits_service.address,
        sign_in="jwks",
        supabase_url=issuer.url,
        supabase_anon_key=ANON_KEY,
        public_url="https://studio.example",
    )
    async with running_studio(settings) as running:
        yield running


def set_cookie(answer: httpx.Response) -> str:
    """Returns the one cookie that an answer sets."""
    (header,) = answer.headers.get_list("set-cookie")
    return header


def code(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


async def test_a_name_signs_in_and_out(lobby: Studio) -> None:
    client = await lobby.client()
    methods = await client.get("/api/sign-in")
    assert methods.json() == {"methods": ["name"], "environment": "local"}

    answer = await client.post("/api/sign-in", json={"name": "Ada"})

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    me = answer.json()
    assert me | {"session_expire_time": ""} == {
        "user_id": "ada",
        "name": "Ada",
        "email": "",
        "is_admin": False,
        "by_cookie": True,
        "session_expire_time": "",
        "low_credit_warning": 20,
    }
    assert me["session_expire_time"].endswith("Z")
    assert set_cookie(answer).endswith("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax")
    assert (await client.get("/api/me")).json() == me

    out = await client.post("/api/sign-out")

    assert out.status_code == 204
    assert set_cookie(out) == f"{COOKIE}=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"
    assert code(await client.get("/api/me")) == (401, "UNAUTHENTICATED")
    assert (await client.post("/api/sign-out")).status_code == 204


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, ""),
        ([], ""),
        ({"name": ""}, "/name"),
        ({"name": "a b"}, "/name"),
        ({"name": "a.b"}, "/name"),
        ({"name": "x" * 65}, "/name"),
        ({"name": 7}, "/name"),
        ({"name": None}, ""),
        ({"name": "ada", "admin": True}, "/admin"),
        ({"name": "ada", "access_token": "x"}, ""),
        ({"email": "ada@example.com", "password": "secret-word"}, ""),
        ({"email": "ada@example.com", "password": ["secret-word"]}, "/password"),
    ],
    ids=str,
)
async def test_what_is_malformed_is_named_and_never_repeated(
    lobby: Studio, body: object, pointer: str
) -> None:
    client = await lobby.client()

    answer = await client.post("/api/sign-in", json=body)

    assert code(answer)[0] == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert "secret-word" not in answer.text
    assert "set-cookie" not in answer.headers


async def test_a_password_goes_to_who_can_judge_it(supabase_studio: Studio, issuer: Issuer) -> None:
    client = await supabase_studio.client()
    methods = (await client.get("/api/sign-in")).json()["methods"]
    assert methods == ["password", "access_token"]

    answer = await client.post(
        "/api/sign-in", json={"email": "ada@example.com", "password": PASSWORD}
    )

    assert answer.json()["user_id"] == issuer.user_id
    assert answer.json()["email"] == "ada@example.com"
    assert issuer.sign_ins == [
        {
            "apikey": ANON_KEY,
            "email": "ada@example.com",
            "password": PASSWORD,
            "grant_type": "password",
        }
    ]
    cookie = set_cookie(answer)
    assert cookie.startswith(f"__Host-{COOKIE}=")
    assert cookie.endswith("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure")
    assert issuer.token().partition(".")[0] not in cookie


async def test_a_wrong_password_is_401_and_an_issuer_that_is_away_503(
    supabase_studio: Studio, issuer: Issuer, capsys: pytest.CaptureFixture[str]
) -> None:
    client = await supabase_studio.client()
    wrong = {"email": "ada@example.com", "password": "wrong-password"}

    assert code(await client.post("/api/sign-in", json=wrong)) == (401, "SIGN_IN_REFUSED")
    issuer.is_broken = True
    away = await client.post("/api/sign-in", json=wrong)

    assert code(away) == (503, "SIGN_IN_UNAVAILABLE")
    assert away.headers["retry-after"] == "2"
    captured = capsys.readouterr()
    assert "wrong-password" not in captured.out + captured.err


async def test_an_issuer_that_does_not_answer_is_away_too(
    supabase_studio: Studio, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.web.identity.SUPABASE_S_MAX", 0.1)
    issuer.let_answer.clear()
    client = await supabase_studio.client()

    answer = await client.post("/api/sign-in", json={"email": "a@b.c", "password": PASSWORD})

    assert code(answer) == (503, "SIGN_IN_UNAVAILABLE")


async def test_an_access_token_becomes_a_session_of_our_own(
    supabase_studio: Studio, issuer: Issuer
) -> None:
    client = await supabase_studio.client()

    bad = await client.post("/api/sign-in", json={"access_token": issuer.token(aud="anon")})
    good = await client.post("/api/sign-in", json={"access_token": issuer.token()})

    assert code(bad) == (401, "SIGN_IN_REFUSED")
    assert good.json()["user_id"] == issuer.user_id
    name = await client.post("/api/sign-in", json={"name": "ada"})
    assert code(name)[0] == 422


async def test_the_session_of_one_installation_is_none_in_another(
    lobby: Studio, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    settings = web_settings(elsewhere)
    settings.session_keys_file.write_text("b3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXIgb3RoZXI=\n")
    async with running_studio(settings) as other:
        foreign = (await (await other.client()).post("/api/sign-in", json={"name": "ada"})).headers
    value = SimpleCookie(foreign["set-cookie"])[COOKIE].value

    client = await lobby.client(Cookie=f"{COOKIE}={value}")
    answer = await client.get("/api/me")

    assert code(answer) == (401, "UNAUTHENTICATED")
    assert "Max-Age=0" in set_cookie(answer)


async def test_a_changed_cookie_is_no_session(lobby: Studio) -> None:
    browser = await lobby.browser()
    value = browser.cookies[COOKIE]
    browser.cookies.clear()

    changed = await lobby.client(Cookie=f"{COOKIE}=x{value}")

    assert code(await changed.get("/api/me")) == (401, "UNAUTHENTICATED")


async def test_other_sites_sign_nobody_in_or_out(lobby: Studio) -> None:
    client = await lobby.client()
    foreign = {"Sec-Fetch-Site": "cross-site"}

    came = await client.post("/api/sign-in", json={"name": "eve"}, headers=foreign)
    left = await client.post("/api/sign-out", headers=foreign)
    # What a form of another site can send is no JSON.
    form = await client.post(
        "/api/sign-in", content=b'{"name":"eve"}', headers={"Content-Type": "text/plain"}
    )

    assert code(came) == code(left) == (403, "FOREIGN_PAGE")
    assert code(form)[0] == 422
    assert not client.cookies


async def test_tries_to_sign_in_are_counted_by_address(lobby: Studio) -> None:
    one, other = await lobby.client("198.51.100.1"), await lobby.client("198.51.100.2")

    answers = await asyncio.gather(
        *(one.post("/api/sign-in", json={"name": "a b"}) for _ in range(11))
    )

    assert sorted(answer.status_code for answer in answers) == [422] * 10 + [429]
    assert (await other.post("/api/sign-in", json={"name": "ada"})).status_code == 200


async def test_who_has_an_ipv6_network_has_one_address(lobby: Studio) -> None:
    answers = [
        await (await lobby.client(f"2001:db8::{number:x}")).post("/api/sign-in", json={})
        for number in range(1, 12)
    ]

    assert [answer.status_code for answer in answers] == [422] * 10 + [429]
