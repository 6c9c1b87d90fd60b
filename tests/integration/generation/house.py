"""A generation service that works, in pieces: its worker with all that it needs, and no server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

from reelworks.credits.v1 import credits_pb2_grpc

from services.generation.archive import Archive
from services.generation.catalog import Offer, load_catalog
from services.generation.claims import Claims
from services.generation.effects import Effects
from services.generation.history import History
from services.generation.image_records import ImageRecords
from services.generation.orphans import Orphans
from services.generation.replicate import Replicate
from services.generation.searches import Searcher, Searches
from services.generation.settlement import CREDITS_DEADLINES_S, Settlement
from services.generation.state import Generation, Stage
from services.generation.store import Store
from services.generation.submission import Callbacks, Submission
from services.generation.timing import FAST, Timing
from services.generation.uploads import Uploads
from services.generation.worker import Worker
from services.runtime.channel import connect
from services.runtime.database import Database
from services.runtime.storage import Storage, open_storage
from tests.integration.generation.credits_service import CreditsService
from tests.integration.generation.harness import (
    OPEN_GATE,
    PRICE,
    Replica,
    eventually,
    opened,
    opened_replica,
)
from tests.integration.generation.simulator_process import TOKEN, Simulator

# Calls have time enough for a machine that is busy: what is tested here is no timeout.
TIMING = replace(
    FAST,
    poll_s=0.05,
    credits_call_s=5.0,
    credits_lease_s=10.0,
    provider_call_s=10.0,
    provider_lease_s=25.0,
    archive_call_s=10.0,
    archive_lease_s=15.0,
    send_before_s=10.0,
)
LIMIT_S = 30.0
CALLBACKS = Callbacks(None, [b"k" * 32], "test")
"""Without a webhook address there is only polling."""
RESERVATION = ("RESERVATION", -PRICE)


@dataclass
class House:
    """What outlives the processes of the generation service."""

    url: str
    credits: CreditsService
    simulator: Simulator
    storage: Path

    @contextlib.asynccontextmanager
    async def replica(self, timing: Timing = TIMING) -> AsyncIterator[Replica]:
        """A process that works until the block ends."""
        async with (
            opened(self.url) as database,
            connect(self.credits.address, CREDITS_DEADLINES_S) as channel,
        ):
            settlement = Settlement(credits_pb2_grpc.CreditsServiceStub(channel))
            async with self._working(database, settlement, timing) as replica:
                yield replica

    @contextlib.asynccontextmanager
    async def dead_replica(self, timing: Timing = TIMING) -> AsyncIterator[Replica]:
        """A process that writes rows and does nothing of what they ask for."""
        async with (
            opened(self.url) as database,
            opened_replica(database, timing) as replica,
        ):
            yield replica

    @contextlib.asynccontextmanager
    async def _working(
        self, database: Database, settlement: Settlement, timing: Timing
    ) -> AsyncIterator[Replica]:
        stopping = asyncio.Event()
        changes: list[Generation] = []

        def changed(generation: Generation) -> None:
            changes.append(generation)
            worker.wake()

        storage = open_storage(f"file://{self.storage}")
        provider = Replicate(TOKEN, self.simulator.api, timing.provider_call_s)
        archive = Archive(storage, TOKEN, [self.simulator.delivery], timing.archive_call_s)
        store = Store(database, timing, changed)
        policy = replace(OPEN_GATE, probe_s=timing.probe_s)
        claims = Claims(database, timing, policy, "test")
        orphans = Orphans(database, timing)
        worker = Worker(
            store,
            claims,
            Effects(settlement, provider, archive, orphans),
            submission_of(provider, claims, database, storage),
            orphans,
            Searcher(Searches(database, timing), store, provider, CALLBACKS),
            timing,
            polls_per_s=1000.0,
            stopping=stopping,
            grace_s=2.0,
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(store.writer.run())
                working = tasks.create_task(worker.run())
                try:
                    yield Replica(database, store, claims, History(database), changes)
                finally:
                    stopping.set()
                    await asyncio.wait([working])
                    store.writer.close()
        finally:
            await provider.close()
            await archive.close()
            storage.close()

    async def statement(self, generation: Generation) -> list[tuple[str, int]]:
        return await self.credits.moves(generation.user_id, generation.generation_id)


def submission_of(
    provider: Replicate, claims: Claims, database: Database, storage: Storage
) -> Submission:
    async def is_other_schema(provider_model: str, schema_sha256: str) -> bool:
        raise AssertionError(f"{provider_model} refuses no input here: {schema_sha256}")

    uploads = Uploads(ImageRecords(database), storage, provider)
    offer = Offer(load_catalog())
    return Submission(provider, offer, CALLBACKS, claims, uploads, is_other_schema)


async def reaches(replica: Replica, generation: Generation, *stages: Stage) -> Generation:
    async def reached() -> Generation | None:
        now = await replica.now_is(generation)
        assert now.stage in stages or not now.stage.is_final, now
        return now if now.stage in stages else None

    return await eventually(reached, LIMIT_S)
