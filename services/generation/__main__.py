"""Starts the generation service: `python -m services.generation`, or `… migrate` for its schema."""

import asyncio

from reelworks.credits.v1 import credits_pb2_grpc
from reelworks.generation.v1 import (
    generation_pb2,
    generation_pb2_grpc,
    prediction_event_pb2,
    prediction_event_pb2_grpc,
)

from services.generation.archive import Archive
from services.generation.bookmark import Bookmark
from services.generation.catalog import Catalog, load_catalog
from services.generation.claims import Claims
from services.generation.history import History
from services.generation.reconciler import Reconciler
from services.generation.replicate import Replicate
from services.generation.requests import checks, late_checks
from services.generation.reservations import Reservations
from services.generation.servicer import (
    DOMAIN,
    GenerationServicer,
    Links,
    PredictionEventServicer,
)
from services.generation.settings import GenerationSettings
from services.generation.settlement import CREDITS_DEADLINES_S, Settlement
from services.generation.state import Generation
from services.generation.store import Store
from services.generation.submission import Callbacks, Submission
from services.generation.watchers import Watchers
from services.generation.worker import Worker
from services.runtime.callback import parse_keys
from services.runtime.channel import connect
from services.runtime.database import Database
from services.runtime.migrations import open_migrated
from services.runtime.process import run_service
from services.runtime.server import ServedService, Server
from services.runtime.settings import exit_with
from services.runtime.shielding import Shielded
from services.runtime.storage import Storage, open_storage

__all__ = ["main"]

EVENT_BYTES_MAX = 9 * 1024 * 1024
"""Bodies of webhooks have up to 8 MiB."""


def main() -> None:
    """Runs the process."""
    run_service("generation", GenerationSettings, serve)


async def serve(settings: GenerationSettings, leave: asyncio.Event) -> None:
    """Serves and works until `leave` is set, as by SIGTERM."""
    key, storage, catalog = _read_key(settings), _open_storage(settings), load_catalog()
    database = await open_migrated(settings.database_url, "generation")
    channel = connect(settings.credits_address, CREDITS_DEADLINES_S)
    timing = settings.timing
    token = settings.replicate_api_token.get_secret_value()
    provider = Replicate(token, settings.replicate_base_url, timing.provider_call_s)
    archive = Archive(storage, token, settings.origins, timing.archive_call_s)
    callbacks = Callbacks(settings.webhook_public_url, key, settings.environment)
    try:
        stub = credits_pb2_grpc.CreditsServiceStub(channel)
        parts = _Parts(settings, leave, database, stub, catalog, provider, archive, callbacks)
        await parts.serve()
    finally:
        await provider.close()
        await archive.close()
        await channel.close()
        storage.close()
        await database.close()


class _Parts:
    """Everything that serves and works, wired."""

    def __init__(
        self,
        settings: GenerationSettings,
        leave: asyncio.Event,
        database: Database,
        credits_stub: "credits_pb2_grpc.CreditsServiceAsyncStub",
        catalog: Catalog,
        provider: Replicate,
        archive: Archive,
        callbacks: Callbacks,
    ) -> None:
        timing, stopping = settings.timing, asyncio.Event()
        self._database = database
        self._claims = claims = Claims(database, timing, settings.gate_policy)
        history, settlement = History(database), Settlement(credits_stub)
        self._shielded = Shielded()
        self._watchers = Watchers(history, stopping)
        self._store = Store(database, timing, self._changed)
        submission = Submission(provider, catalog, callbacks, claims.pause_creates)
        self._worker = Worker(
            self._store,
            claims,
            settlement,
            submission,
            provider,
            archive,
            timing,
            stopping,
            settings.grace_s,
        )
        self._reconciler = Reconciler(
            history,
            Bookmark(database),
            Reservations(credits_stub),
            settlement,
            settings.reconcile_policy,
            stopping,
        )
        generations = GenerationServicer(
            self._store,
            history,
            self._watchers,
            catalog,
            settlement,
            self._shielded,
            Links(archive.link),
        )
        self._server = Server(
            settings=settings,
            domain=DOMAIN,
            services=_services(generations, PredictionEventServicer(self._store)),
            leave=leave,
            stopping=stopping,
            checks=checks(),
            late_checks=late_checks(catalog),
            message_bytes_max=EVENT_BYTES_MAX,
        )

    async def serve(self) -> None:
        """Serves and works; the writer outlives the last call and the last effect."""
        if self._database.is_exclusive:
            await self._claims.drop_leases()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._store.writer.run())
            await self._server.serve(
                self._worker.run(), self._watchers.run(), self._reconciler.run()
            )
            await self._shielded.drain()
            self._store.writer.close()

    def _changed(self, generation: Generation) -> None:
        self._watchers.publish(generation)
        self._worker.wake()


def _services(
    generations: GenerationServicer, events: PredictionEventServicer
) -> list[ServedService]:
    return [
        ServedService(
            generation_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name,
            lambda server: generation_pb2_grpc.add_GenerationServiceServicer_to_server(
                generations, server
            ),
        ),
        ServedService(
            prediction_event_pb2.DESCRIPTOR.services_by_name["PredictionEventService"].full_name,
            lambda server: prediction_event_pb2_grpc.add_PredictionEventServiceServicer_to_server(
                events, server
            ),
        ),
    ]


def _read_key(settings: GenerationSettings) -> bytes:
    try:
        return parse_keys(settings.callback_keys_file.read_text("ascii"))[0]
    except (OSError, ValueError) as error:
        exit_with(f"REELWORKS_CALLBACK_KEYS_FILE: {settings.callback_keys_file}: {error}")


def _open_storage(settings: GenerationSettings) -> Storage:
    try:
        return open_storage(settings.storage_url)
    except ValueError as error:
        exit_with(f"REELWORKS_STORAGE_URL: {error}")


if __name__ == "__main__":
    main()
