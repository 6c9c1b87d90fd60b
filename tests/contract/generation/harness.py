"""The generation service on loopback as production wires it, but without its worker."""

import asyncio
import contextlib
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from reelworks.credits.v1 import credits_pb2_grpc
from reelworks.generation.v1 import (
    generation_pb2,
    generation_pb2_grpc,
    prediction_event_pb2,
    prediction_event_pb2_grpc,
)

from services.generation.__main__ import MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX
from services.generation.cancellation import CancelPolicy
from services.generation.catalog import Offer, load_catalog
from services.generation.creation import Creation
from services.generation.gate import GatePolicy
from services.generation.history import History
from services.generation.image_records import ImageRecords
from services.generation.intake import Intake, IntakePolicy
from services.generation.messages import Messages
from services.generation.queue import Queue
from services.generation.reconciliation import Finding, Reconciliation
from services.generation.replicate import Replicate
from services.generation.requests import checks, late_checks
from services.generation.servicer import DOMAIN, GenerationServicer, PredictionEventServicer
from services.generation.settlement import CREDITS_DEADLINES_S, Settlement
from services.generation.statistics import Statistics
from services.generation.store import Store
from services.generation.timing import FAST
from services.generation.uploads import Uploads
from services.generation.watchers import Watchers
from services.runtime.channel import connect, invoke
from services.runtime.database import Database
from services.runtime.errors import InvalidRequest, ServiceError
from services.runtime.server import ServedService, Server, ServerSettings
from services.runtime.shielding import Shielded
from services.runtime.storage import open_storage
from tests.integration.generation.credits_service import CreditsService
from tests.integration.generation.harness import (
    OPEN_GATE,
    PROMPT,
    USER,
    Replica,
    opened,
    opened_replica,
)
from tests.serving import free_address, serving

KEYS = (b"k" * 32, b"o" * 32)
"""Those that quotes are signed with: the present one and the one before."""
UNFINISHED_MAX = 20
COMPARED = Reconciliation(
    reconciled_at=datetime(2026, 7, 1, 12, tzinfo=UTC),
    ends_checked_until=datetime(2026, 7, 1, 11, 45, tzinfo=UTC),
    findings={Finding.CHARGED_WITHOUT_VIDEO: 2},
)

Raised = TypeVar("Raised", bound=ServiceError)

Kind = generation_pb2.Generation.Kind
Stage = generation_pb2.Generation.Stage
Status = generation_pb2.Generation.Status


@dataclass(frozen=True)
class Service:
    """What a caller of the service has, and what a test does behind its back."""

    stub: Any
    """Untyped, since the generated type of an asynchronous stub is not a class at run time."""
    events: Any
    credits: CreditsService
    replica: Replica
    """Another writer of the same tables, as a worker is."""
    stopping: asyncio.Event
    files: Path
    """The folder of its storage."""
    address: str
    """Where it listens."""

    async def call(self, method: str, **fields: Any) -> Any:
        """Calls a method of GenerationService; raises ServiceError."""
        request = getattr(generation_pb2, f"{method}Request")(**fields)
        return await invoke(getattr(self.stub, method), request)

    async def create(self, **fields: Any) -> Any:
        return await self.call("CreateGeneration", **wanted(**fields))

    async def get(self, generation_id: str, user_id: str = USER) -> Any:
        return await self.call("GetGeneration", user_id=user_id, generation_id=generation_id)

    async def deliver(self, **fields: Any) -> Any:
        request = prediction_event_pb2.DeliverPredictionEventRequest(**fields)
        return await invoke(self.events.DeliverPredictionEvent, request)


def wanted(**changes: Any) -> dict[str, Any]:
    """The fields of a good request, with a fresh id."""
    return {
        "user_id": USER,
        "generation_id": str(uuid.uuid4()),
        "kind": Kind.TEXT_TO_VIDEO,
        "model": "t2v-14B",
        "resolution": "480p",
        "prompt": PROMPT,
    } | changes


def lasting(generation: Any) -> Any:
    """A message without what time alone changes."""
    message = generation_pb2.Generation()
    message.CopyFrom(generation)
    for field in ("queue_position", "eta"):
        message.ClearField(field)
    return message


async def refusal(kind: type[Raised], call: Awaitable[Any]) -> tuple[str, dict[str, str]]:
    """Returns reason and metadata of the error of this kind that a call raises."""
    with pytest.raises(kind) as raised:
        await call
    assert type(raised.value) is kind
    assert raised.value.message
    return raised.value.reason, raised.value.metadata


async def violations(call: Awaitable[Any]) -> tuple[str, dict[str, str]]:
    """Returns the reason of a refusal for bad fields, and the rule that each of them breaks."""
    with pytest.raises(InvalidRequest) as raised:
        await call
    assert len({v.field for v in raised.value.violations}) == len(raised.value.violations)
    return raised.value.reason, {v.field: v.rule for v in raised.value.violations}


@contextlib.asynccontextmanager
async def running_service(
    url: str, credits_service: CreditsService, policy: GatePolicy = OPEN_GATE
) -> AsyncIterator[Service]:
    address = free_address()
    async with (
        opened(url) as database,
        opened_replica(database) as replica,
        connect(credits_service.address, CREDITS_DEADLINES_S) as credits_channel,
        opened_uploads(database) as (folder, uploads),
    ):
        stopping = asyncio.Event()
        settlement = Settlement(credits_pb2_grpc.CreditsServiceStub(credits_channel))
        async with (
            serving(
                lambda leave: serve(
                    database, settlement, policy, uploads, address, stopping, leave
                ),
                address,
            ),
            connect(address, message_bytes_max=MESSAGE_BYTES_MAX) as channel,
        ):
            yield Service(
                generation_pb2_grpc.GenerationServiceStub(channel),
                prediction_event_pb2_grpc.PredictionEventServiceStub(channel),
                credits_service,
                replica,
                stopping,
                folder,
                address,
            )


@contextlib.asynccontextmanager
async def opened_uploads(database: Database) -> AsyncIterator[tuple[Path, Uploads]]:
    """Images in a folder of their own; the provider is out of reach."""
    with tempfile.TemporaryDirectory() as name:
        storage = open_storage(Path(name).as_uri())
        provider = Replicate("r8_token", "http://127.0.0.1:1", FAST.provider_call_s)
        uploads = Uploads(ImageRecords(database), storage, provider)
        try:
            yield Path(name), uploads
        finally:
            await provider.close()
            storage.close()


async def serve(
    database: Database,
    settlement: Settlement,
    policy: GatePolicy,
    uploads: Uploads,
    address: str,
    stopping: asyncio.Event,
    leave: asyncio.Event,
    streams_max: int = 1000,
) -> None:
    history, shielded, offer = History(database), Shielded(), Offer(load_catalog())
    queue, cancel_policy = Queue(database, offer, policy), CancelPolicy()
    watchers = Watchers(history, stopping)
    store = Store(database, FAST, watchers.publish, UNFINISHED_MAX)
    generations = GenerationServicer(
        store,
        history,
        watchers,
        offer,
        Intake(
            history,
            queue,
            offer,
            settlement,
            uploads.violation,
            KEYS,
            IntakePolicy(UNFINISHED_MAX, FAST.deadline_s),
        ),
        Creation(store, history, settlement, shielded),
        Messages("https://videos.example/{}".format, cancel_policy, queue.line),
        cancel_policy,
        Statistics(database),
        lambda: COMPARED,
        uploads,
        shielded,
    )
    events = PredictionEventServicer(store)

    def register(server: grpc.aio.Server) -> None:
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(generations, server)
        prediction_event_pb2_grpc.add_PredictionEventServiceServicer_to_server(events, server)

    server = Server(
        settings=ServerSettings(address=address, drain_s=0, grace_s=1, streams_max=streams_max),
        domain=DOMAIN,
        services=[ServedService("reelworks.generation.v1.GenerationService", register)],
        stopping=stopping,
        checks=checks(),
        late_checks=late_checks(offer),
        message_bytes_max=MESSAGE_BYTES_MAX,
        request_bytes_max=REQUEST_BYTES_MAX,
        leave=leave,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.writer.run())
        await server.serve(watchers.run())
        await shielded.drain()
        store.writer.close()
