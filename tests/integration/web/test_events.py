"""GET /api/events, over real connections and with the real services behind."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from services.generation.events import Reserved
from services.generation.state import Stage
from services.web.callers import Caller
from services.web.development import TOKEN_S, development_key, development_token, person_named
from services.web.event_ids import AGE_MAX, Position, format_position
from services.web.mailbox import WAITING_MAX
from services.web.rates import Rate
from services.web.routes import events
from services.web.sessions import SESSION, SESSION_MAX, Person, Session
from tests.conftest import NewDatabase
from tests.integration.generation.harness import (
    REQUEST,
    USER,
    attempt_of,
    beginning,
    generation_in,
)
from tests.integration.web.live import LiveServices, eventually, running_services
from tests.integration.web.streams import LIMIT_S, client_of, opened_stream, served_studio
from tests.integration.web.studio import Studio, web_settings

OTHER = "bob"


@dataclass(frozen=True)
class Web:
    """A web service with real services behind it."""

    live: LiveServices
    studio: Studio
    url: str

    def client(self, user_id: str = USER) -> httpx.AsyncClient:
        return client_of(self.url, self.studio.token(user_id))


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
async def web(
    new_database: NewDatabase, tmp_path: Path, templates: dict[tuple[str, str], str]
) -> AsyncIterator[Web]:
    async with running_services(new_database("generation"), tmp_path, templates) as live:
        settings = web_settings(
            tmp_path,
            credits_address=live.credits.address,
            generation_address=live.generation.address,
        )
        async with served_studio(settings) as (studio, url):
            yield Web(live, studio, url)


async def test_a_stream_is_what_browsers_and_proxies_need(web: Web) -> None:
    async with web.client() as client, opened_stream(client) as stream:
        await stream.has(lambda s: s.balance)

        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["x-accel-buffering"] == "no"
        assert "no-" in stream.headers["cache-control"]
        assert "content-length" not in stream.headers
        assert stream.retry_ms is not None
        assert 500 <= stream.retry_ms <= 3000


async def test_generations_and_balances_are_those_of_the_rest_of_the_api(web: Web) -> None:
    async with web.client() as client, opened_stream(client) as stream:
        await stream.has(lambda s: s.balance)
        begun = await web.live.replica.begun()
        await web.live.replica.tell(begun, Reserved())
        await web.live.credits.add(USER, 5)
        await stream.has(lambda s: s.balance and s.balance["available_credits"] == 105)
        await stream.has(
            lambda s: s.generations.get(begun.generation_id, {}).get("stage") == "READY"
        )

        answer = await client.get(f"/api/generations/{begun.generation_id}")
        balance = await client.get("/api/credits")

    told = stream.generations[begun.generation_id]
    changing = ("queue_position", "eta")
    assert {k: v for k, v in told.items() if k not in changing} == {
        k: v for k, v in answer.json().items() if k not in changing
    }
    assert stream.balance == balance.json()
    ids = [event.event_id for event in stream.events]
    assert all(ids)
    assert ids == sorted(ids, key=lambda event_id: [int(part) for part in event_id.split(".")])


async def test_a_deleted_generation_is_told_as_removed(web: Web) -> None:
    ended = generation_in(Stage.FAILED)
    await web.live.replica.insert(ended)
    async with web.client() as client, opened_stream(client) as stream:
        await stream.has(lambda s: s.balance)

        answer = await client.delete(f"/api/generations/{ended.generation_id}")
        assert answer.status_code == 204, answer.text

        await stream.has(lambda s: ended.generation_id in s.removed)
        event = next(event for event in stream.events if event.name == "removed")
        assert set(event.data) == {"generation_id", "version"}
        assert ended.generation_id not in stream.generations


async def test_the_page_reads_it_by_its_cookie_and_strangers_do_not(web: Web) -> None:
    async with client_of(web.url) as browser:
        refused = await browser.get("/api/events")
        assert refused.status_code == 401
        assert refused.headers["content-type"] == "application/problem+json"

        signed_in = await browser.post("/api/sign-in", json={"name": USER})
        assert signed_in.status_code == 200
        async with opened_stream(browser) as stream:
            await stream.has(lambda s: s.balance)


async def test_a_user_hears_nothing_of_another(web: Web) -> None:
    async with (
        web.client() as client,
        web.client(OTHER) as other_client,
        opened_stream(client) as mine,
        opened_stream(other_client) as theirs,
    ):
        for stream in (mine, theirs):
            await stream.has(lambda s: s.balance)
        begun = [await web.live.replica.begun(beginning(user_id=u)) for u in (USER, OTHER)]
        await web.live.credits.add(OTHER, 1)
        await mine.knows(begun[0].generation_id)
        await theirs.knows(begun[1].generation_id)
        await theirs.has(lambda s: s.balance and s.balance["available_credits"] == 101)

        assert set(mine.generations) == {begun[0].generation_id}
        assert set(theirs.generations) == {begun[1].generation_id}
        assert mine.balance is not None
        assert mine.balance["available_credits"] == 100


async def test_a_user_has_eight_streams_and_a_place_is_given_back(web: Web) -> None:
    async with contextlib.AsyncExitStack() as streams:
        client = await streams.enter_async_context(web.client())
        for _ in range(8):
            stream = await streams.enter_async_context(opened_stream(client))
        refused = await client.get("/api/events")
        assert refused.status_code == 429
        assert refused.headers["retry-after"]
        async with web.client(OTHER) as other, opened_stream(other) as theirs:
            await theirs.has(lambda s: s.balance)
        await stream.has(lambda s: s.balance)

    async def given_back() -> bool:
        return web.studio.parts.hub.connections == 0

    await eventually(given_back, LIMIT_S)
    async with web.client() as client, opened_stream(client) as stream:
        await stream.has(lambda s: s.balance)


async def test_it_ends_when_the_token_does(web: Web) -> None:
    person = person_named(USER)
    assert person is not None
    key = development_key(web.studio.parts.settings.development_key_file)
    token = development_token(key, person, time.time() - TOKEN_S + 2)
    async with client_of(web.url, token) as client, opened_stream(client) as stream:
        await stream.has(lambda s: s.has_ended)

    assert stream.names[-1] == "bye"
    assert stream.balance is not None


async def test_a_quiet_stream_shows_that_it_lives(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "TICK_S", 0.5)
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.1)
    async with web.client() as client, opened_stream(client) as stream:
        await stream.has(lambda s: s.names.count("tick") >= 2)
        await stream.has(lambda s: s.comments.count("ping") >= 2)

        tick = next(event for event in stream.events if event.name == "tick")
        assert tick.data["time"].endswith("Z")
        # It says nothing of where the reader is.
        assert tick.event_id == ""


async def test_a_cut_loses_nothing(web: Web) -> None:
    begun = await web.live.replica.begun()
    async with web.client() as client:
        async with opened_stream(client) as stream:
            await stream.knows(begun.generation_id)
            await stream.has(lambda s: s.balance)
        missed = generation_in(Stage.FAILED)
        await web.live.replica.insert(missed)
        async with opened_stream(client, stream.last_event_id) as resumed:
            await resumed.knows(missed.generation_id)

            assert "reset" not in resumed.names


async def test_an_unreadable_event_id_begins_anew(web: Web) -> None:
    begun = await web.live.replica.begun()
    async with web.client() as client, opened_stream(client, "x" * 5000) as stream:
        await stream.knows(begun.generation_id)

        assert stream.names[0] == "reset"
        assert stream.names.count("reset") == 1


async def test_what_is_too_long_ago_begins_anew(web: Web) -> None:
    old = generation_in(Stage.FAILED, created_at=datetime.now(UTC) - timedelta(days=2))
    await web.live.replica.insert(old)
    week_ago = datetime.now(UTC) - AGE_MAX
    async with web.client() as client:
        late = format_position(Position(week_ago - timedelta(minutes=1), 0))
        async with opened_stream(client, late) as stream:
            await stream.has(lambda s: s.balance)
        soon = format_position(Position(week_ago + timedelta(minutes=1), 0))
        async with opened_stream(client, soon) as resumed:
            await resumed.knows(old.generation_id)

    assert stream.names[0] == "reset"
    assert old.generation_id not in stream.generations
    assert "reset" not in resumed.names


async def test_opening_streams_counts_to_the_rate_of_calls(web: Web) -> None:
    limit = web.studio.parts.settings.calls_per_minute
    async with web.client() as client:
        for _ in range(limit):
            assert (await web.studio.parts.limits.take(Rate.CALLS, USER)) is not None

        refused = await client.get("/api/events")

    assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")
    assert refused.headers["retry-after"]
    async with web.client(OTHER) as other, opened_stream(other) as stream:
        await stream.has(lambda s: s.balance)


async def test_a_stream_that_cannot_be_kept_true_ends_and_the_next_is_refused(web: Web) -> None:
    web.studio.parts.hub._blind_s = 0.5
    async with web.client() as client:
        async with opened_stream(client) as stream:
            await stream.has(lambda s: s.balance)
            await web.live.generation.stop()

            await stream.has(lambda s: s.has_ended)
        refused = await client.get("/api/events")
        await web.live.generation.start()

        async def let_in() -> bool:
            async with client.stream("GET", "/api/events") as answer:
                return answer.status_code == 200

        await eventually(let_in, LIMIT_S)

    # With `bye` it would come back at once, and in vain.
    assert "bye" not in stream.names
    assert (refused.status_code, refused.json()["code"]) == (503, "NOT_WATCHED")
    assert int(refused.headers["retry-after"]) >= 1


async def test_so_many_users_are_watched_as_is_set(
    new_database: NewDatabase, tmp_path: Path, templates: dict[tuple[str, str], str]
) -> None:
    async with running_services(new_database("generation"), tmp_path, templates) as live:
        settings = web_settings(
            tmp_path,
            credits_address=live.credits.address,
            generation_address=live.generation.address,
            watched_users_max=1,
        )
        async with served_studio(settings) as (studio, url):
            web = Web(live, studio, url)
            async with web.client() as client, opened_stream(client) as stream:
                await stream.has(lambda s: s.balance)
                async with web.client(OTHER) as other:
                    refused = await other.get("/api/events")

    assert (refused.status_code, refused.json()["code"]) == (503, "TOO_MANY_WATCHED")


async def test_who_only_watches_comes_back_while_the_session_can_be_renewed(web: Web) -> None:
    sessions, now = web.studio.parts.sessions, datetime.now(UTC)
    # As one that began long ago, it cannot be renewed before the stream has ended.
    ends_at = now + SESSION / 2 + timedelta(seconds=3)
    session = Session(person_of(USER), ends_at - SESSION_MAX, ends_at)
    cookie = {"Cookie": f"{sessions.cookie_name}={sessions.value(session)}"}
    async with client_of(web.url) as browser:
        async with opened_stream(browser, **cookie) as stream:
            await stream.has(lambda s: s.has_ended)
        assert stream.names[-1] == "bye"

        # What is left of it is not cut into ever shorter streams.
        async with opened_stream(browser, **cookie) as last:
            await last.has(lambda s: s.balance)
            assert not last.has_ended


async def test_a_stream_renews_the_session_that_it_begins_with(web: Web) -> None:
    sessions, now = web.studio.parts.sessions, datetime.now(UTC)
    half = Session(person_of(USER), now - SESSION / 2, now + SESSION / 2)
    cookie = {"Cookie": f"{sessions.cookie_name}={sessions.value(half)}"}
    async with client_of(web.url) as browser, opened_stream(browser, **cookie) as stream:
        renewed = stream.headers["set-cookie"].partition(";")[0].partition("=")[2]
        found = sessions.read(renewed, now + SESSION - timedelta(seconds=1))

    assert found is not None


def person_of(user_id: str) -> Person:
    person = person_named(user_id)
    assert person is not None
    return person


SIX = datetime(2026, 7, 1, 18, tzinfo=UTC)


@pytest.mark.parametrize(
    ("by_cookie", "left_m", "ends_after_m"),
    [
        # The stream of a session ends while the next request can still renew it.
        (True, 60, 30),
        (True, 55, 25),
        (True, 31, 1),
        # With less left it was at its last end already, or it would have been renewed.
        (True, 30, 30),
        (True, 7, 7),
        # A token is what it is.
        (False, 60, 60),
        (False, 600, 600),
    ],
)
def test_a_stream_ends_in_time(by_cookie: bool, left_m: int, ends_after_m: int) -> None:
    expires_at = SIX + timedelta(minutes=left_m)
    caller = Caller(USER, "", "", is_admin=False, by_cookie=by_cookie, expires_at=expires_at)

    assert events.ends_at(caller, SIX) == SIX + timedelta(minutes=ends_after_m)


async def test_streams_outlive_both_services(web: Web) -> None:
    begun = await web.live.replica.ready()
    async with web.client() as client, opened_stream(client) as stream:
        await stream.knows(begun.generation_id)
        await stream.has(lambda s: s.balance)

        await web.live.generation.stop()
        await web.live.credits.stop()
        await web.live.replica.claims.claim_ready(1, attempt_of)
        await web.live.generation.start()
        await web.live.credits.start()
        await web.live.credits.add(USER, 3)

        await stream.has(lambda s: s.generations[begun.generation_id]["stage"] == "SUBMITTING")
        await stream.has(lambda s: s.balance and s.balance["available_credits"] == 103)
        assert not stream.has_ended


async def test_who_does_not_read_costs_little_and_holds_up_nobody(web: Web) -> None:
    host, _, port = web.url.removeprefix("http://").partition(":")
    loop = asyncio.get_running_loop()
    with socket.socket() as still:
        still.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        still.setblocking(False)
        await loop.sock_connect(still, (host, int(port)))
        head = f"Host: {host}:{port}\r\nAuthorization: Bearer {web.studio.token(USER)}"
        await loop.sock_sendall(still, f"GET /api/events HTTP/1.1\r\n{head}\r\n\r\n".encode())
        assert (await loop.sock_recv(still, 100)).startswith(b"HTTP/1.1 200")
        hub = web.studio.parts.hub
        (subscription,) = hub._watches[USER].subscriptions
        async with web.client() as client, opened_stream(client) as stream:
            await stream.has(lambda s: s.balance)
            # More than the buffers of sockets and server take, and then more than the mailbox.
            request = replace(REQUEST, prompt="x" * 500)
            waiting = 0
            for _ in range(60):
                many = [generation_in(Stage.FAILED, request=request) for _ in range(250)]
                await web.live.replica.insert(*many)
                await stream.knows(*(generation.generation_id for generation in many))
                if subscription.mailbox.waiting < waiting:
                    break
                waiting = subscription.mailbox.waiting
                assert waiting <= WAITING_MAX
            assert waiting >= 250

            received = b""
            while b"event: reset" not in received:
                async with asyncio.timeout(LIMIT_S):
                    received = received[-100:] + await loop.sock_recv(still, 1 << 16)
