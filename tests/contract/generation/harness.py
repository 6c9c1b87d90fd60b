"""The generation service on loopback as production wires it, but without its worker."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
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

from services.generation.__main__ import EVENT_BYTES_MAX
from services.generation.catalog import load_catalog
from services.generation.history import History
from services.generation.requests import checks, late_checks
from services.generation.servicer import (
    DOMAIN,
    GenerationServicer,
    Links,
    PredictionEventServicer,
)
from services.generation.settlement import CREDITS_DEADLINES_S, Settlement
from services.generation.store import Store
from services.generation.timing import FAST
from services.generation.watchers import Watchers
from services.runtime.channel import connect, invoke
from services.runtime.database import Database
from services.runtime.errors import InvalidRequest, ServiceError
from services.runtime.server import ServedService, Server, ServerSettings
from services.runtime.shielding import Shielded
from tests.integration.generation.credits_service import CreditsService
from tests.integration.generation.harness import (
    PROMPT,
    USER,
    Replica,
    opened,
    opened_replica,
)
from tests.serving import free_address, serving

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
    address: str

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
async def running_service(url: str, credits_service: CreditsService) -> AsyncIterator[Service]:
    address = free_address()
    async with (
        opened(url) as database,
        opened_replica(database) as replica,
        connect(credits_service.address, CREDITS_DEADLINES_S) as credits_channel,
    ):
        stopping = asyncio.Event()
        settlement = Settlement(credits_pb2_grpc.CreditsServiceStub(credits_channel))
        async with (
            serving(lambda leave: _serve(database, settlement, address, stopping, leave), address),
            connect(address, message_bytes_max=EVENT_BYTES_MAX) as channel,
        ):
            yield Service(
                generation_pb2_grpc.GenerationServiceStub(channel),
                prediction_event_pb2_grpc.PredictionEventServiceStub(channel),
                credits_service,
                replica,
                stopping,
                address,
            )


async def _serve(
    database: Database,
    settlement: Settlement,
    address: str,
    stopping: asyncio.Event,
    leave: asyncio.Event,
) -> None:
    history, shielded, catalog = History(database), Shielded(), load_catalog()
    watchers = Watchers(history, stopping)
    store = Store(database, FAST, watchers.publish)
    links = Links("https://videos.example/{}".format)
    generations = GenerationServicer(store, history, watchers, catalog, settlement, shielded, links)
    events = PredictionEventServicer(store)

    def register(server: grpc.aio.Server) -> None:
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(generations, server)
        prediction_event_pb2_grpc.add_PredictionEventServiceServicer_to_server(events, server)

    server = Server(
        settings=ServerSettings(address=address, drain_s=0, grace_s=1),
        domain=DOMAIN,
        services=[ServedService("reelworks.generation.v1.GenerationService", register)],
        stopping=stopping,
        checks=checks(),
        late_checks=late_checks(catalog),
        message_bytes_max=EVENT_BYTES_MAX,
        leave=leave,
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.writer.run())
        await server.serve(watchers.run())
        await shielded.drain()
        store.writer.close()
