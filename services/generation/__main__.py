"""Starts the generation service: `python -m services.generation`, or `… migrate` for its schema."""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from reelworks.credits.v1 import credits_pb2_grpc
from reelworks.generation.v1 import (
    generation_pb2,
    generation_pb2_grpc,
    prediction_event_pb2,
    prediction_event_pb2_grpc,
)

from services.generation.archive import Archive
from services.generation.bookmark import Bookmark
from services.generation.callers import CALLERS
from services.generation.catalog import Offer, load_catalog
from services.generation.claims import Claims
from services.generation.creation import Creation
from services.generation.effects import Effects
from services.generation.erasure import Erasure
from services.generation.figures import Figures
from services.generation.history import History
from services.generation.image_records import ImageRecords
from services.generation.intake import Intake, IntakePolicy
from services.generation.messages import Messages
from services.generation.metrics import GenerationMetrics
from services.generation.orphans import Orphans
from services.generation.queue import Queue
from services.generation.reconciler import Reconciler
from services.generation.removals import Removals
from services.generation.replicate import Replicate
from services.generation.requests import checks, late_checks
from services.generation.reservations import Reservations
from services.generation.schemas import ModelSchemas
from services.generation.searches import Searcher, Searches
from services.generation.servicer import DOMAIN, GenerationServicer, PredictionEventServicer
from services.generation.settings import GenerationSettings
from services.generation.settlement import CREDITS_DEADLINES_S, Settlement
from services.generation.state import Generation
from services.generation.statistics import Statistics
from services.generation.store import Store
from services.generation.submission import Callbacks, Submission
from services.generation.uploads import Uploads
from services.generation.watchers import Watchers
from services.generation.worker import Worker
from services.runtime.callback import parse_keys
from services.runtime.channel import connect
from services.runtime.database import Database
from services.runtime.media import sign_media
from services.runtime.metrics import CallMetrics, Metrics, serving_metrics
from services.runtime.migrations import open_migrated, require_newest
from services.runtime.process import run_service
from services.runtime.server import ServedService, Server
from services.runtime.settings import exit_with
from services.runtime.shielding import Shielded
from services.runtime.storage import Storage, StorageFailed, open_storage
from services.runtime.telemetry import get_logger
from services.runtime.tls import open_certificates

__all__ = ["main"]

logger = get_logger(__name__)

MESSAGE_BYTES_MAX = 11 * 1024 * 1024
"""Images have up to 10 MiB, bodies of webhooks up to 8."""
REQUEST_BYTES_MAX = {
    "/reelworks.generation.v1.GenerationService/UploadImage": MESSAGE_BYTES_MAX,
    "/reelworks.generation.v1.PredictionEventService/DeliverPredictionEvent": MESSAGE_BYTES_MAX,
}
"""By method, where it is more than usual."""


def main() -> None:
    """Runs the process."""
    run_service("generation", GenerationSettings, serve)


async def serve(settings: GenerationSettings, leave: asyncio.Event) -> None:
    """Serves and works until `leave` is set, as by SIGTERM."""
    keys, storage = _read_keys(settings), _open_storage(settings)
    certificates = open_certificates(settings)
    offer = Offer(load_catalog(settings.provider_speed))
    metrics = Metrics()
    measures = GenerationMetrics(offer.catalog, metrics)
    database = await open_migrated(settings, "generation", leave)
    measures.watch_pool(database)
    measures.asks_for_webhooks(settings.webhook_public_url is not None)
    channel = connect(
        settings.credits_address,
        CREDITS_DEADLINES_S,
        certificates=certificates,
        measured=CallMetrics.of_clients(metrics),
    )
    timing = settings.timing
    token = settings.replicate_api_token.get_secret_value()
    provider = Replicate(
        token, settings.replicate_base_url, timing.provider_call_s, measures.requested
    )
    archive = Archive(storage, token, settings.origins, timing.archive_call_s)
    images = ImageRecords(database, settings.retention)
    uploads = Uploads(images, storage, provider)
    callbacks = Callbacks(settings.webhook_public_url, keys, settings.environment)
    try:
        stub = credits_pb2_grpc.CreditsServiceStub(channel)
        files = _Files(storage, archive, images, uploads)
        parts = _Parts(
            settings, leave, database, stub, offer, provider, files, callbacks, metrics, measures
        )
        async with serving_metrics(metrics, settings.metrics_address):
            await parts.serve()
    finally:
        await provider.close()
        await archive.close()
        await channel.close()
        storage.close()
        await database.close()


@dataclass(frozen=True, slots=True)
class _Files:
    """Everything that has to do with stored files."""

    storage: Storage
    archive: Archive
    images: ImageRecords
    uploads: Uploads

    def erasure(
        self,
        database: Database,
        settings: GenerationSettings,
        on_change: Callable[[Generation], None],
        stopping: asyncio.Event,
    ) -> Erasure:
        """Returns what removes them."""
        removals, retention = Removals(database), settings.retention
        return Erasure(removals, self.images, self.storage, retention, on_change, stopping)


class _Parts:
    """Everything that serves and works, wired."""

    def __init__(
        self,
        settings: GenerationSettings,
        leave: asyncio.Event,
        database: Database,
        credits_stub: "credits_pb2_grpc.CreditsServiceAsyncStub",
        offer: Offer,
        provider: Replicate,
        files: _Files,
        callbacks: Callbacks,
        metrics: Metrics,
        measures: GenerationMetrics,
    ) -> None:
        timing, stopping = settings.timing, asyncio.Event()
        self._database = database
        replica = f"{socket.gethostname()}:{os.getpid()}"
        self._claims = claims = Claims(database, timing, settings.gate_policy, replica, measures)
        history, settlement = History(database), Settlement(credits_stub)
        orphans, cancel_policy = Orphans(database, timing, measures), settings.cancel_policy
        queue = Queue(database, offer, settings.gate_policy)
        self._shielded = Shielded()
        self._watchers = Watchers(history, stopping)
        self._store = Store(database, timing, self._changed, settings.unfinished_max, measures)
        self._schemas = ModelSchemas(offer, provider, database, stopping)
        submission = Submission(
            provider, offer, callbacks, claims, files.uploads, self._schemas.is_other_than
        )
        self._worker = Worker(
            self._store,
            claims,
            Effects(settlement, provider, files.archive, orphans),
            submission,
            orphans,
            Searcher(Searches(database, timing), self._store, provider, callbacks),
            timing,
            settings.polls_per_s,
            stopping,
            settings.grace_s,
        )
        self._reconciler = reconciler = Reconciler(
            history,
            Bookmark(database),
            Reservations(credits_stub),
            settlement,
            settings.reconcile_policy,
            stopping,
        )
        statistics = Statistics(database)
        self._figures = Figures(statistics, queue, lambda: reconciler.latest, measures, stopping)
        self._erasure = files.erasure(database, settings, self._watchers.publish, stopping)
        generations = GenerationServicer(
            self._store,
            history,
            self._watchers,
            offer,
            _intake(settings, history, queue, offer, settlement, files.uploads, callbacks),
            Creation(self._store, history, settlement, self._shielded),
            Messages(_link(settings, files.storage, callbacks.keys[0]), cancel_policy, queue.line),
            cancel_policy,
            statistics,
            lambda: reconciler.latest,
            files.uploads,
            self._shielded,
        )
        events = PredictionEventServicer(self._store)
        self._server = _build_server(
            settings, leave, stopping, database, offer, generations, events, metrics
        )

    async def serve(self) -> None:
        """Serves and works; the writer outlives the last call and the last effect."""
        if self._database.is_exclusive:
            await self._claims.drop_leases()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._store.writer.run())
            await self._server.serve(
                self._worker.run(),
                self._watchers.run(),
                self._reconciler.run(),
                self._schemas.run(),
                self._erasure.run(),
                self._figures.run(),
            )
            await self._shielded.drain()
            self._store.writer.close()

    def _changed(self, generation: Generation) -> None:
        self._watchers.publish(generation)
        self._worker.wake()


def _intake(
    settings: GenerationSettings,
    history: History,
    queue: Queue,
    offer: Offer,
    settlement: Settlement,
    uploads: Uploads,
    callbacks: Callbacks,
) -> Intake:
    policy = IntakePolicy(settings.unfinished_max, settings.timing.deadline_s)
    return Intake(history, queue, offer, settlement, uploads.violation, callbacks.keys, policy)


def _build_server(
    settings: GenerationSettings,
    leave: asyncio.Event,
    stopping: asyncio.Event,
    database: Database,
    offer: Offer,
    generations: GenerationServicer,
    events: PredictionEventServicer,
    metrics: Metrics,
) -> Server:
    named = generation_pb2.DESCRIPTOR.services_by_name["GenerationService"]
    named_events = prediction_event_pb2.DESCRIPTOR.services_by_name["PredictionEventService"]
    add = generation_pb2_grpc.add_GenerationServiceServicer_to_server
    add_events = prediction_event_pb2_grpc.add_PredictionEventServiceServicer_to_server
    return Server(
        settings=settings,
        domain=DOMAIN,
        services=[
            ServedService(named.full_name, lambda server: add(generations, server)),
            ServedService(named_events.full_name, lambda server: add_events(events, server)),
        ],
        leave=leave,
        stopping=stopping,
        callers=CALLERS,
        examine=lambda: require_newest(database, "generation"),
        checks=checks(),
        late_checks=late_checks(offer),
        metrics=metrics,
        message_bytes_max=MESSAGE_BYTES_MAX,
        request_bytes_max=REQUEST_BYTES_MAX,
    )


def _read_keys(settings: GenerationSettings) -> Sequence[bytes]:
    try:
        return parse_keys(settings.callback_keys_file.read_text("ascii"))
    except (OSError, ValueError) as error:
        exit_with(f"REELWORKS_CALLBACK_KEYS_FILE: {settings.callback_keys_file}: {error}")


def _open_storage(settings: GenerationSettings) -> Storage:
    try:
        key = settings.storage_access_key
        return open_storage(
            settings.storage_url, access_key=None if key is None else key.get_secret_value()
        )
    except ValueError as error:
        exit_with(f"REELWORKS_STORAGE_URL: {error}")


def _link(
    settings: GenerationSettings, storage: Storage, signing_key: bytes
) -> Callable[[str], str]:
    """Returns what tells people where a stored file is to be had."""
    base_url = settings.media_url
    if base_url is not None and not storage.is_public:
        return lambda key: sign_media(base_url, key, signing_key, datetime.now(UTC))

    def link(key: str) -> str:
        try:
            return storage.link(key)
        except StorageFailed as error:
            # Everything else about the generation can be told; its address comes with the next.
            logger.warning("no address", key=key, detail=str(error))
            return ""

    return link


if __name__ == "__main__":
    main()
