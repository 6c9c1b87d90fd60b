"""While generation is away and the door is killed again and again, no acknowledged event is lost.

REELWORKS_TEST_OUTAGE_S says how long generation is away; a run for the record takes 300.
"""

import asyncio
import base64
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import create_async_engine

from services.runtime.database import parse_database_url
from services.webhook.ingress import HEALTH_PATH, WEBHOOK_PATH
from services.webhook.tables import inbox
from tests.integration.webhook.harness import (
    CALLBACK_KEY,
    SECRET,
    FakeGeneration,
    eventually,
    free_port,
    good_query,
    headers_of,
    serving,
)

OUTAGE_S = float(os.environ.get("REELWORKS_TEST_OUTAGE_S", "6"))
EVENTS_PER_S = 50
EVENTS = int(OUTAGE_S * EVENTS_PER_S)
KILLS = 3
START_LIMIT_S = 90.0
REPEAT_S = 0.1
LEASE_S = 6.0
"""Longer than a call may take, or events would be delivered twice for want of a processor."""


@dataclass
class Door:
    """The webhook service as a process, which is started again after each kill."""

    environment: dict[str, str]
    client: aiohttp.ClientSession
    process: "subprocess.Popen[bytes] | None" = None
    acknowledged: set[str] = field(default_factory=set)

    @property
    def base(self) -> str:
        return f"http://{self.environment['REELWORKS_HTTP_ADDRESS']}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.webhook"],
            env=self.environment,
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        """Ends the process by SIGKILL, in the middle of whatever it does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def is_open(self) -> bool:
        try:
            async with self.client.get(self.base + HEALTH_PATH) as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def send(self, number: int) -> None:
        """Sends an event until it is acknowledged, as Replicate does."""
        webhook_id, query = f"msg_{number}", good_query()
        body = f'{{"id": "p{number}", "status": "succeeded"}}'.encode()
        headers = headers_of(body, webhook_id)
        async with asyncio.timeout(START_LIMIT_S):
            while webhook_id not in self.acknowledged:
                with contextlib.suppress(aiohttp.ClientError):
                    address = f"{self.base}{WEBHOOK_PATH}?{query}"
                    async with self.client.post(address, data=body, headers=headers) as answer:
                        if answer.status == 200:
                            self.acknowledged.add(webhook_id)
                            return
                await asyncio.sleep(REPEAT_S)


async def send_all(door: Door) -> None:
    """Sends events at a steady rate, whatever becomes of them."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as events:
        for number in range(EVENTS):
            await asyncio.sleep(began + number / EVENTS_PER_S - loop.time())
            events.create_task(door.send(number))


@pytest.fixture
def environment(url: str, tmp_path: Path) -> dict[str, str]:
    keys = tmp_path / "callback_keys"
    keys.write_text(base64.b64encode(CALLBACK_KEY).decode() + "\n")
    return {
        "PATH": os.environ["PATH"],
        "REELWORKS_ADDRESS": f"127.0.0.1:{free_port()}",
        "REELWORKS_HTTP_ADDRESS": f"127.0.0.1:{free_port()}",
        "REELWORKS_DATABASE_URL": url,
        "REELWORKS_GENERATION_ADDRESS": f"127.0.0.1:{free_port()}",
        "REELWORKS_CALLBACK_KEYS_FILE": str(keys),
        # Where several may share the work, who was killed is missed until its leases end.
        "REELWORKS_LEASE_S": str(LEASE_S),
        "REPLICATE_WEBHOOK_SECRET": SECRET,
    }


@pytest.fixture
async def door(environment: dict[str, str]) -> AsyncIterator[Door]:
    async with aiohttp.ClientSession() as client:
        door = Door(environment, client)
        door.start()
        try:
            await eventually(door.is_open, START_LIMIT_S)
            yield door
        finally:
            door.kill()


async def all_recorded(url: str) -> bool:
    """Reads beside the running process, whose SQLite file no second one may open to write."""
    engine = create_async_engine(parse_database_url(url))
    try:
        async with engine.connect() as connection:
            found = await connection.execute(
                select(inbox.c.state, func.count()).group_by(inbox.c.state)
            )
            return [tuple(row) for row in found] == [("DELIVERED", EVENTS)]
    finally:
        await engine.dispose()


@pytest.mark.timeout(400 + 2 * OUTAGE_S)
async def test_each_acknowledged_event_takes_effect_once_after_an_outage(
    door: Door, url: str
) -> None:
    generation = FakeGeneration()
    port = int(door.environment["REELWORKS_GENERATION_ADDRESS"].rpartition(":")[2])

    sending = asyncio.create_task(send_all(door))
    for kill in range(1, KILLS + 1):
        enough = EVENTS * kill // (KILLS + 1)
        await eventually(
            lambda enough=enough: len(door.acknowledged) >= enough, OUTAGE_S + START_LIMIT_S
        )
        door.kill()
        door.start()
    await sending
    assert generation.calls.total() == 0

    async with serving(generation, port):
        # Once more in the middle of handing on, where calls are answered and not yet recorded.
        await eventually(lambda: generation.calls, START_LIMIT_S)
        door.kill()
        door.start()
        await eventually(lambda: len(generation.calls) == EVENTS, START_LIMIT_S + OUTAGE_S)
        await eventually(lambda: all_recorded(url), START_LIMIT_S)

    # By the key of the contract generation applies an event once; each had one key and no other.
    assert len(door.acknowledged) == EVENTS
    assert {webhook_id for webhook_id, *_ in generation.calls} == door.acknowledged
    repeated = [key for key, times in generation.calls.items() if times > 1]
    assert len(repeated) <= 32  # As many as may be in flight when the process is killed.
