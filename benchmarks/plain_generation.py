"""Stands in for the generation service as a plain loop that keeps nothing.

    python -m benchmarks.plain_generation

It takes the service's settings, answers its calls and makes the same calls to credits, to the
provider and to its file host, by the same clients. What it has not is the saga: no row, no claim,
no gate. A generation is a coroutine, and gone when the process dies.
"""

import asyncio
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from reelworks.credits.v1 import credits_pb2_grpc
from reelworks.generation.v1 import (
    generation_pb2,
    generation_pb2_grpc,
    prediction_event_pb2,
    prediction_event_pb2_grpc,
)

from services.generation.archive import Archive, Archived
from services.generation.catalog import SEED_MAX, load_catalog
from services.generation.events import Committed, Reserved
from services.generation.prediction import Prediction, parse_prediction
from services.generation.replicate import Created, CreateRequest, Replicate
from services.generation.requests import checks, request_of
from services.generation.saga import begin
from services.generation.servicer import DOMAIN
from services.generation.settings import GenerationSettings
from services.generation.settlement import CREDITS_DEADLINES_S, Settlement
from services.generation.state import Generation
from services.generation.submission import Callbacks
from services.generation.worker import CREATE_SLOTS, lanes_of
from services.runtime.callback import parse_keys
from services.runtime.channel import connect
from services.runtime.process import run_service
from services.runtime.server import ServedService, Server
from services.runtime.storage import open_storage

__all__ = ["PlainServicer", "main"]


class PlainServicer(
    generation_pb2_grpc.GenerationServiceServicer,
    prediction_event_pb2_grpc.PredictionEventServiceServicer,
):
    """Makes one video a coroutine, with as many calls at once as the service makes."""

    def __init__(
        self,
        settings: GenerationSettings,
        settlement: Settlement,
        provider: Replicate,
        archive: Archive,
    ) -> None:
        self._catalog = load_catalog()
        self._timing = settings.timing
        keys = parse_keys(settings.callback_keys_file.read_text("ascii"))
        self._callbacks = Callbacks(settings.webhook_public_url, keys, settings.environment)
        self._settlement = settlement
        self._provider = provider
        self._archive = archive
        lanes = lanes_of(self._timing)
        self._creates = asyncio.Semaphore(CREATE_SLOTS)
        self._downloads = asyncio.Semaphore(lanes["archive"].slots)
        self._commits = asyncio.Semaphore(lanes["credits"].slots)
        self._ends: dict[str, asyncio.Future[Prediction]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def CreateGeneration(  # noqa: N802  The contract's name.
        self, request: generation_pb2.CreateGenerationRequest, context: Any
    ) -> generation_pb2.Generation:
        """Reserves the price and begins to make the video."""
        del context
        wanted = request_of(request)
        price_credits = self._catalog.variant_of(wanted).price_credits
        generation = begin(
            request.generation_id,
            request.user_id,
            wanted,
            price_credits,
            datetime.now(UTC),
            self._timing,
        )
        reserved = await self._settlement.reserve(generation)
        if reserved != Reserved():
            raise RuntimeError(f"not reserved: {reserved}")
        task = asyncio.create_task(self._make(generation))
        self._tasks.add(task)
        task.add_done_callback(self._end)
        return generation_pb2.Generation(
            generation_id=generation.generation_id, user_id=generation.user_id
        )

    async def DeliverPredictionEvent(  # noqa: N802  The contract's name.
        self, request: prediction_event_pb2.DeliverPredictionEventRequest, context: Any
    ) -> prediction_event_pb2.DeliverPredictionEventResponse:
        """Tells a coroutine that its prediction ended."""
        del context
        prediction = parse_prediction(request.payload)
        end = self._ends.get(request.generation_id)
        if prediction.is_final and end is not None and not end.done():
            end.set_result(prediction)
        response = prediction_event_pb2.DeliverPredictionEventResponse
        return response(disposition=response.Disposition.APPLIED)

    async def _make(self, generation: Generation) -> None:
        key = generation.generation_id
        end = self._ends[key] = asyncio.get_running_loop().create_future()
        async with self._creates:
            created = await self._provider.create(self._create_of(generation))
        if not isinstance(created, Created):
            raise RuntimeError(f"not created: {created}")
        prediction = await end
        del self._ends[key]
        async with self._downloads:
            saved = await self._archive.save(
                generation.user_id, key, prediction.output_url or "nowhere"
            )
        if not isinstance(saved, Archived):
            raise RuntimeError(f"not saved: {saved}")
        async with self._commits:
            committed = await self._settlement.commit(generation)
        if committed != Committed():
            raise RuntimeError(f"not committed: {committed}")

    def _create_of(self, generation: Generation) -> CreateRequest:
        variant = self._catalog.variant_of(generation.request)
        model_input: Mapping[str, Any] = variant.schema.build(
            generation.request, secrets.randbelow(SEED_MAX + 1)
        )
        return CreateRequest(
            provider_model=variant.provider_model,
            input=model_input,
            webhook=self._callbacks.address(generation.generation_id, 1),
            cancel_after_s=self._timing.deadline_s,
            send_before=time.monotonic() + self._timing.send_before_s,
        )

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()  # An error would go unseen, and the benchmark wait in vain.


async def serve(settings: GenerationSettings, leave: asyncio.Event) -> None:
    """Serves until `leave` is set."""
    token = settings.replicate_api_token.get_secret_value()
    channel = connect(settings.credits_address, CREDITS_DEADLINES_S)
    provider = Replicate(token, settings.replicate_base_url, settings.timing.provider_call_s)
    storage = open_storage(settings.storage_url)
    archive = Archive(storage, token, settings.origins, settings.timing.archive_call_s)
    stub = credits_pb2_grpc.CreditsServiceStub(channel)
    # All other calls are answered UNIMPLEMENTED.
    servicer = PlainServicer(settings, Settlement(stub), provider, archive)  # type: ignore[abstract]
    generations = generation_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name
    events = prediction_event_pb2.DESCRIPTOR.services_by_name["PredictionEventService"].full_name
    add = generation_pb2_grpc.add_GenerationServiceServicer_to_server
    add_events = prediction_event_pb2_grpc.add_PredictionEventServiceServicer_to_server
    server = Server(
        settings=settings,
        domain=DOMAIN,
        services=[
            ServedService(generations, lambda server: add(servicer, server)),
            ServedService(events, lambda server: add_events(servicer, server)),
        ],
        leave=leave,
        stopping=asyncio.Event(),
        checks=checks(),
    )
    try:
        await server.serve()
    finally:
        await provider.close()
        await archive.close()
        await channel.close()
        storage.close()


def main() -> None:
    """Runs the process."""
    run_service("plain generation", GenerationSettings, serve)


if __name__ == "__main__":
    main()
