"""The real services that the web service lives from; each can leave and come back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reelworks.credits.v1 import credits_pb2_grpc

from services.client.credits import CreditsClient
from services.client.generations import GenerationClient
from services.generation.settlement import CREDITS_DEADLINES_S, Settlement
from services.generation.uploads import Uploads
from services.runtime.channel import connect
from services.runtime.database import Database
from tests.contract.generation.harness import opened_uploads, serve
from tests.integration.generation.credits_service import CreditsService, running_credits
from tests.integration.generation.harness import (
    OPEN_GATE,
    Replica,
    eventually,
    opened,
    opened_replica,
)
from tests.serving import free_address, serving

__all__ = ["GenerationService", "LiveServices", "eventually", "running_services"]


@dataclass
class GenerationService:
    """A generation service without a worker, at one address for as long as the test lasts."""

    database: Database
    settlement: Settlement
    uploads: Uploads
    address: str = field(default_factory=free_address)
    _running: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def start(self, streams_max: int = 1000) -> None:
        stopping = asyncio.Event()

        def run(leave: asyncio.Event) -> Coroutine[Any, Any, None]:
            return serve(
                self.database,
                self.settlement,
                OPEN_GATE,
                self.uploads,
                self.address,
                stopping,
                leave,
                streams_max,
            )

        await self._running.enter_async_context(serving(run, self.address))

    async def stop(self) -> None:
        await self._running.aclose()


@dataclass(frozen=True)
class LiveServices:
    """What a test has at hand."""

    credits: CreditsService
    generation: GenerationService
    replica: Replica
    """Another writer of generation's tables, as a worker is."""
    credits_client: CreditsClient
    generations: GenerationClient


@contextlib.asynccontextmanager
async def running_services(
    url: str, folder: Path, templates: dict[tuple[str, str], str]
) -> AsyncIterator[LiveServices]:
    """Gives real services; `url` is generation's database."""
    async with (
        running_credits(folder, templates) as credits_service,
        connect(credits_service.address, CREDITS_DEADLINES_S) as channel,
        opened(url) as database,
        opened_replica(database) as replica,
        opened_uploads(database) as (_, uploads),
    ):
        settlement = Settlement(credits_pb2_grpc.CreditsServiceStub(channel))
        generation = GenerationService(database, settlement, uploads)
        await generation.start()
        try:
            async with (
                CreditsClient(credits_service.address) as credits_client,
                GenerationClient(generation.address) as generations,
            ):
                yield LiveServices(
                    credits_service, generation, replica, credits_client, generations
                )
        finally:
            await generation.stop()
