"""Who asks is proven by a token or by the session, and has an account from the first time on."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from services.client.credits import CreditsClient
from services.web.accounts import Accounts
from services.web.sessions import Person, Session
from tests.integration.generation.credits_service import CreditsService
from tests.integration.generation.harness import eventually
from tests.integration.web.studio import Studio, running_studio, web_settings

ADA = Person("ada", "Ada", "", is_admin=False)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_token_proves_who_asks(lobby: Studio) -> None:
    program = await lobby.program("ada")

    me = (await program.get("/api/me")).json()

    assert (me["user_id"], me["by_cookie"], me["session_expire_time"]) == ("ada", False, None)


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer x", "Basic YTpi", "bearer a.b.c", "x", ""]
)
async def test_a_bad_token_is_refused_even_beside_a_good_cookie(lobby: Studio, header: str) -> None:
    browser = await lobby.browser()

    answer = await browser.get("/api/me", headers={"Authorization": header})

    assert code(answer) == (401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_two_tokens_are_one_too_many(lobby: Studio) -> None:
    client = await lobby.client()
    bearer = f"Bearer {lobby.token()}"

    answer = await client.get(
        "/api/me", headers=[("Authorization", bearer), ("Authorization", bearer)]
    )

    assert code(answer) == (401, "UNAUTHENTICATED")


async def test_nobody_is_asked_to_sign_in(lobby: Studio) -> None:
    answer = await (await lobby.client()).get("/api/me")

    assert code(answer) == (401, "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("value", [None, "", "0", "true"])
async def test_a_write_with_the_cookie_needs_what_no_foreign_page_can_send(
    studio: Studio, value: str | None
) -> None:
    browser = await studio.browser()
    del browser.headers["X-Reelworks"]
    headers = {} if value is None else {"X-Reelworks": value}

    read = await browser.get("/api/credits", headers=headers)
    write = await browser.post("/api/generations/delete", json={}, headers=headers)

    assert read.status_code == 200
    assert code(write) == (403, "CSRF_HEADER_MISSING")
    program = await studio.program()
    by_token = await program.post("/api/generations/delete", json={})
    assert by_token.status_code == 422


async def test_a_session_in_use_goes_on(lobby: Studio) -> None:
    sessions, now = lobby.parts.sessions, datetime.now(UTC)
    older = Session(ADA, now - timedelta(minutes=30), now + timedelta(minutes=30))
    client = await lobby.client(Cookie=f"{sessions.cookie_name}={sessions.value(older)}")

    answer = await client.get("/api/me")

    assert "Max-Age=3" in answer.headers["set-cookie"]
    expires_at = datetime.fromisoformat(answer.json()["session_expire_time"])
    assert abs(expires_at - now - timedelta(hours=1)) < timedelta(seconds=10)
    assert "set-cookie" not in (await (await lobby.browser()).get("/api/me")).headers


async def test_after_twelve_hours_a_session_is_not_renewed(lobby: Studio) -> None:
    sessions, now = lobby.parts.sessions, datetime.now(UTC)
    last = Session(ADA, now - timedelta(hours=11, minutes=59), now + timedelta(minutes=1))
    client = await lobby.client(Cookie=f"{sessions.cookie_name}={sessions.value(last)}")

    answer = await client.get("/api/me")

    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers


async def test_who_comes_for_the_first_time_gets_an_account_once(
    lobby: Studio, credits_service: CreditsService
) -> None:
    program = await lobby.program("new")
    assert await credits_service.balance("new") == (0, 0)

    answers = await asyncio.gather(*(program.get("/api/me") for _ in range(20)))

    assert {answer.status_code for answer in answers} == {200}
    assert await credits_service.balance("new") == (100, 0)


async def test_concurrent_first_requests_make_one_call_and_the_known_are_bounded(
    credits_service: CreditsService,
) -> None:
    calls: list[str] = []
    async with CountingClient(credits_service.address, calls) as client:
        accounts = Accounts(client, known_max=2)

        await asyncio.gather(*(accounts.open("ada") for _ in range(10)))
        assert calls == ["ada"]
        for user_id in ("bob", "ada", "eve", "ada", "bob"):
            await accounts.open(user_id)

        # Of two that are known, the one that was away longest made room.
        assert calls == ["ada", "bob", "eve", "bob"]


class CountingClient(CreditsClient):
    """The real client; it notes its calls."""

    def __init__(self, address: str, calls: list[str]) -> None:
        super().__init__(address)
        self._calls = calls

    async def open_account(self, user_id: str):  # type: ignore[no-untyped-def]  # As above.
        self._calls.append(user_id)
        return await super().open_account(user_id)


async def test_without_credits_a_user_is_asked_to_come_back_and_is_not_taken_for_known(
    lobby: Studio, credits_service: CreditsService
) -> None:
    program = await lobby.program("late")
    await credits_service.stop()

    away = await program.get("/api/me")

    assert code(away) == (503, "ACCOUNT_UNAVAILABLE")
    assert away.headers["retry-after"] == "2"
    await credits_service.start()

    async def is_let_in() -> bool:
        return (await program.get("/api/me")).is_success

    await eventually(is_let_in, limit_s=20)
    assert await credits_service.balance("late") == (100, 0)


async def test_a_caller_who_leaves_does_not_end_the_opening_for_the_others(
    lobby: Studio, credits_service: CreditsService
) -> None:
    with credits_service.standing_still():
        first = asyncio.create_task(lobby.parts.accounts.open("both"))
        second = asyncio.create_task(lobby.parts.accounts.open("both"))
        await asyncio.sleep(0)
        first.cancel()

    await second
    assert await credits_service.balance("both") == (100, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"sign_in": None, "public_url": None},
        {"sign_in": None, "public_url": "http://localhost:8080"},
        {"sign_in": "development", "address": "0.0.0.0:8080"},
    ],
    ids=str,
)
async def test_where_anybody_is_believed_the_log_warns_once(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with capture_logs() as lines:
        async with running_studio(web_settings(tmp_path, **changes)) as studio:
            assert studio.parts.identity.methods == ("name",)

    (line,) = [line for line in lines if line["log_level"] == "warning"]
    assert line["event"] == "anybody is believed to be who they say"
