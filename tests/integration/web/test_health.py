"""A replica lives while its process works, and is ready while the services behind it answer."""

import asyncio
import time

from services.client.credits import CreditsClient
from services.client.generations import GenerationClient
from services.web.presence import Presence
from tests.integration.generation.credits_service import CreditsService
from tests.integration.generation.harness import eventually
from tests.integration.web.backend import Backend
from tests.integration.web.studio import Studio


async def test_with_all_services_it_is_ready(studio: Studio) -> None:
    client = await studio.client()

    for name in ("startup", "live", "ready"):
        answer = await client.get(f"/healthz/{name}")
        assert answer.status_code == 200, name


async def test_without_one_it_lives_but_is_not_ready(lobby: Studio) -> None:
    client = await lobby.client()
    began = time.monotonic()

    ready = await client.get("/healthz/ready")

    assert (ready.status_code, ready.text) == (503, "away: generation\n")
    assert time.monotonic() - began < 3
    assert (await client.get("/healthz/live")).status_code == 200


async def test_the_services_are_asked_once_however_many_ask_here(services: Backend) -> None:
    calls: list[float] = []
    async with (
        CountingClient(services.credits.address, calls) as credits_client,
        GenerationClient(services.generation_address) as generations,
    ):
        presence = Presence(credits_client, generations)

        answers = await asyncio.gather(*(presence.away() for _ in range(50)))

        assert set(answers) == {()}
        assert len(calls) <= 2  # The first second may end meanwhile.


class CountingClient(CreditsClient):
    """The real client; it notes when it was asked."""

    def __init__(self, address: str, calls: list[float]) -> None:
        super().__init__(address)
        self._calls = calls

    async def is_serving(self, within_s: float) -> bool:
        self._calls.append(within_s)
        return await super().is_serving(within_s)


async def test_it_is_ready_again_when_the_service_is_back(
    studio: Studio, services: Backend
) -> None:
    client = await studio.client()
    credits_service: CreditsService = services.credits
    await credits_service.stop()

    assert (await client.get("/healthz/ready")).text == "away: credits\n"
    await credits_service.start()

    async def is_ready() -> bool:
        return (await client.get("/healthz/ready")).is_success

    await eventually(is_ready, limit_s=20)


async def test_one_that_leaves_says_so_and_answers_still(studio: Studio) -> None:
    client = await studio.client()
    studio.parts.leaving.set()

    assert (await client.get("/healthz/ready")).text == "leaving\n"
    assert (await client.get("/api/sign-in")).status_code == 200
