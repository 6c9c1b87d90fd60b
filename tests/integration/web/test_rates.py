"""A user has so many calls a minute, and all they want while nobody can count."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from limits.aio.storage import MemoryStorage

from services.web.counters import KEYS_MAX
from services.web.rates import COMPLAINT_S, Limits, Rate, TooManyStreams
from tests.integration.web.studio import Studio, running_studio, web_settings
from tests.serving import free_address

TEN = dict.fromkeys(Rate, 10)


@pytest.fixture
async def limits() -> AsyncIterator[Limits]:
    counted = Limits("memory://", TEN, streams_max=2)
    yield counted
    await counted.close()


async def test_the_eleventh_in_a_minute_is_refused(limits: Limits) -> None:
    granted = [await limits.take(Rate.CREATES, "ada") for _ in range(12)]

    assert [one is not None and one.is_granted for one in granted] == [True] * 10 + [False] * 2
    last = granted[-1]
    assert last is not None
    assert (last.limit, last.remaining) == (10, 0)
    assert 1 <= last.reset_s <= 60


async def test_users_and_rates_are_counted_apart(limits: Limits) -> None:
    for _ in range(11):
        await limits.take(Rate.CREATES, "ada")

    for rate, key in ((Rate.CREATES, "bob"), (Rate.CALLS, "ada")):
        other = await limits.take(rate, key)
        assert other is not None
        assert other.is_granted


async def test_concurrent_calls_are_counted_all(limits: Limits) -> None:
    granted = await asyncio.gather(*(limits.take(Rate.CALLS, "ada") for _ in range(100)))

    assert sum(one is not None and one.is_granted for one in granted) == 10


async def test_the_headers_say_what_is_left(limits: Limits) -> None:
    allowance = await limits.take(Rate.SIGN_INS, "192.0.2.1")

    assert allowance is not None
    headers = allowance.headers()
    assert headers["RateLimit-Policy"] == '"sign-ins";q=10;w=60'
    assert headers["RateLimit"].startswith('"sign-ins";r=9;t=')


async def test_a_flood_of_keys_does_not_fill_the_memory() -> None:
    limits = Limits("memory://", TEN, streams_max=1)

    for number in range(KEYS_MAX + 1000):
        await limits.take(Rate.SIGN_INS, str(number))

    assert isinstance(limits._counters, MemoryStorage)
    assert len(limits._counters.storage) <= KEYS_MAX
    await limits.close()


async def test_streams_are_given_back(limits: Limits) -> None:
    with limits.stream("ada"), limits.stream("bob"):
        with limits.stream("ada"), pytest.raises(TooManyStreams), limits.stream("ada"):
            pytest.fail("it is one too many")
        with limits.stream("ada"):
            assert limits.streams == 3
    assert limits.streams == 0


@contextlib.asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """Gives the address of one that takes connections and says nothing."""
    done = asyncio.Event()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"
        done.set()


@pytest.mark.parametrize("is_silent", [False, True])
async def test_without_redis_everybody_may_and_the_log_says_so_once_a_minute(
    is_silent: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        address = await stack.enter_async_context(silent_server()) if is_silent else free_address()
        now = 1000.0
        url = f"async+redis://:secret@{address}"
        limits = Limits(url, TEN, streams_max=1, clock=lambda: now)

        for _ in range(5):
            assert await limits.take(Rate.CALLS, "ada") is None
            now += 1.1
        said = capsys.readouterr()
        assert (said.out + said.err).count("rates are not counted") == 1
        assert "secret" not in said.out + said.err

        now += COMPLAINT_S
        await limits.take(Rate.CALLS, "ada")
        said = capsys.readouterr()
        assert (said.out + said.err).count("rates are not counted") == 1
        await limits.close()


async def test_a_store_that_is_away_is_not_asked_at_every_call() -> None:
    asked = 0

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        limits = Limits(
            f"async+redis://127.0.0.1:{server.sockets[0].getsockname()[1]}", TEN, streams_max=1
        )
        await limits.take(Rate.CALLS, "ada")
        before = asked

        for _ in range(50):
            await limits.take(Rate.CALLS, "ada")

        assert 0 < asked == before
        await limits.close()


@pytest.fixture
async def strict_studio(tmp_path: Path) -> AsyncIterator[Studio]:
    settings = web_settings(tmp_path, sign_ins_per_minute=2)
    async with running_studio(settings) as running:
        yield running


async def test_who_is_refused_is_told_when_to_come_back(strict_studio: Studio) -> None:
    client = await strict_studio.client()
    first, *_, last = [await client.post("/api/sign-in", json={"name": "ada"}) for _ in range(3)]

    assert first.headers["ratelimit-policy"] == '"sign-ins";q=2;w=60'
    assert first.headers["ratelimit"].startswith('"sign-ins";r=1;t=')
    assert last.status_code == 429
    problem = last.json()
    assert problem["code"] == "RATE_LIMITED"
    assert (problem["rate"], problem["limit"]) == ("sign-ins", 2)
    assert last.headers["retry-after"] == str(problem["retry_after_s"])
    assert last.headers["ratelimit"] == f'"sign-ins";r=0;t={problem["retry_after_s"]}'
    assert 1 <= problem["retry_after_s"] <= 60


async def test_an_address_that_a_stranger_writes_himself_counts_for_nothing(
    strict_studio: Studio,
) -> None:
    client = await strict_studio.client()

    answers = [
        await client.post(
            "/api/sign-in", json={"name": "ada"}, headers={"X-Forwarded-For": f"192.0.2.{number}"}
        )
        for number in range(3)
    ]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
