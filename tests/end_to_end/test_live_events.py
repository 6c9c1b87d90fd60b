"""What happens to videos is told live, while the processes that tell of it are killed."""

import asyncio
import urllib.request
from pathlib import Path

import httpx
import pytest

from services.client.credits import CreditsClient
from tests.end_to_end.running import HURRIED, Running, eventually, start
from tests.integration.web.streams import EventStream, client_of, opened_stream

USER = "ada"
VIDEOS = 3
PRICE = 10
MADE_S_MAX = 90.0

pytestmark = pytest.mark.timeout(300)


async def killed(stack: Running, name: str) -> None:
    """Kills a process, and waits until the supervisor has started it again."""
    process_id = stack.kill(name)
    await asyncio.to_thread(
        eventually, lambda: stack.up_file.processes.get(name) not in (None, process_id)
    )


def statuses(stream: EventStream) -> list[str]:
    return sorted(known["status"] for known in stream.generations.values())


async def begin(browser: httpx.AsyncClient, number: int) -> None:
    """Begins a video; while a service is away it asks again, by the same key."""
    wanted = {"prompt": f"a fox, number {number}", "model": "t2v-14B", "resolution": "480p"}
    headers = {"Idempotency-Key": f"fox-{number}"}
    async with asyncio.timeout(MADE_S_MAX):
        answer = None
        while answer is None or answer.status_code in (503, 504):
            answer = await browser.post(
                "/api/generation/text-to-video", json=wanted, headers=headers
            )
    assert answer.status_code == 202, answer.text


def answers(stack: Running) -> bool:
    """Tells whether the web service is there again."""
    address = f"{stack.up_file.addresses['web']}/healthz/ready"
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310  Its own.
            return bool(answer.status == 200)
    except OSError:
        return False


async def test_streams_outlive_the_services_and_readers_the_web_service(tmp_path: Path) -> None:
    with start(tmp_path / "var", **HURRIED) as stack:
        async with client_of(stack.up_file.addresses["web"]) as browser:
            browser.headers["X-Reelworks"] = "1"
            signed_in = await browser.post("/api/sign-in", json={"name": USER})
            assert signed_in.is_success, signed_in.text
            async with opened_stream(browser) as stream:
                await stream.has(lambda s: s.balance)
                for number in range(VIDEOS):
                    await begin(browser, number)
                    if number == 0:
                        await killed(stack, "generation")
                        await killed(stack, "credits")
                await stream.has(lambda s: len(s.generations) == VIDEOS, MADE_S_MAX)
                assert not stream.has_ended

                # It ends without a word, and with it the connection.
                await killed(stack, "web")
                await stream.has(lambda s: s.has_ended)
            await asyncio.to_thread(eventually, lambda: answers(stack))
            async with opened_stream(browser, stream.last_event_id) as resumed:
                resumed.generations.update(stream.generations)
                await resumed.has(lambda s: statuses(s) == ["COMPLETED"] * VIDEOS, MADE_S_MAX)
                await resumed.has(lambda s: s.balance and s.balance["reserved_credits"] == 0)

                assert "reset" not in resumed.names
                assert resumed.balance is not None
                assert resumed.balance["available_credits"] == 100 - VIDEOS * PRICE
        async with CreditsClient(stack.up_file.addresses["credits"]) as credits_client:
            report = await credits_client.verify_ledger(USER)
            assert not report.violations
