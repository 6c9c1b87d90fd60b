"""A web service that leaves keeps nobody, cuts nobody off unasked, and loses no event."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.generation.state import Stage
from services.web.settings import WebSettings
from tests.conftest import NewDatabase
from tests.integration.generation.harness import beginning, generation_in
from tests.integration.web.live import LiveServices, running_services
from tests.integration.web.streams import (
    EventStream,
    client_of,
    opened_stream,
    web_process,
)
from tests.integration.web.studio import token_of, web_settings
from tests.serving import free_address

STREAMS = 100
USERS = 25
EXIT_S_MAX = float(os.environ.get("REELWORKS_TEST_EXIT_S_MAX", "5"))
"""An idle machine needs less than one second; one on which much else runs is given more."""

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
async def live(
    new_database: NewDatabase, tmp_path: Path, templates: dict[tuple[str, str], str]
) -> AsyncIterator[LiveServices]:
    async with running_services(new_database("generation"), tmp_path, templates) as services:
        yield services


def user(number: int) -> str:
    return f"user-{number % USERS}"


@contextlib.asynccontextmanager
async def opened_streams(
    url: str, settings: WebSettings, last_event_ids: list[str | None]
) -> AsyncIterator[list[EventStream]]:
    tokens = [token_of(settings, user(number)) for number in range(USERS)]
    async with client_of(url) as client, contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                opened_stream(client, event_id, Authorization=f"Bearer {tokens[number % USERS]}")
            )
            for number, event_id in enumerate(last_event_ids)
        ]


async def test_streams_end_with_bye_at_once_and_are_resumed_without_loss(
    live: LiveServices, tmp_path: Path
) -> None:
    settings = web_settings(
        tmp_path,
        address=free_address(),
        credits_address=live.credits.address,
        generation_address=live.generation.address,
    )
    begun = [await live.replica.begun(beginning(user_id=user(n))) for n in range(USERS)]
    log = tmp_path / "web.log"
    async with (
        web_process(settings, log) as (process, url),
        opened_streams(url, settings, [None] * STREAMS) as streams,
    ):
        for number, stream in enumerate(streams):
            await stream.knows(begun[number % USERS].generation_id)
            await stream.has(lambda s: s.balance)
        told_at = time.monotonic()

        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(EXIT_S_MAX):
            await process.wait()

        exit_s = time.monotonic() - told_at
        for stream in streams:
            await stream.has(lambda s: s.has_ended)
        assert process.returncode == 0, log.read_text()
        assert [stream.names[-1] for stream in streams] == ["bye"] * STREAMS
    print(f"exit after {exit_s:.2f} s with {STREAMS} streams")  # noqa: T201  For whoever looks.

    # What ends while nobody serves is neither unfinished afterwards nor told of again.
    missed = [generation_in(Stage.FAILED, user_id=user(number)) for number in range(USERS)]
    await live.replica.insert(*missed)
    for number in range(USERS):
        await live.credits.add(user(number), 5)
    async with (
        web_process(settings, log) as (_, url),
        opened_streams(url, settings, [s.last_event_id for s in streams]) as resumed,
    ):
        for number, stream in enumerate(resumed):
            await stream.knows(missed[number % USERS].generation_id)
            await stream.has(lambda s: s.balance and s.balance["available_credits"] == 105)
            assert "reset" not in stream.names
