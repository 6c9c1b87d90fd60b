"""Answers the calls of GenerationService and PredictionEventService."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from reelworks.generation.v1 import (
    generation_pb2,
    generation_pb2_grpc,
    prediction_event_pb2,
    prediction_event_pb2_grpc,
)

from services.generation.cancellation import CancelPolicy, Verdict, judge_cancel
from services.generation.catalog import Offer
from services.generation.commands import Deliver, Happen
from services.generation.creation import Creation
from services.generation.deliveries import Disposition
from services.generation.events import CancelRequested, Deleted, Resumed
from services.generation.history import Cursor, Filter, History
from services.generation.intake import Intake
from services.generation.messages import (
    Messages,
    image_message,
    model_message,
    quote_message,
    stage_name,
    stats_message,
    timestamp,
)
from services.generation.pages import cursor_in, page_token, parked_cursor_in, parked_token
from services.generation.prediction import NotAPrediction, parse_prediction
from services.generation.reconciliation import Reconciliation
from services.generation.requests import kind_of, request_of, stage_of, status_filter
from services.generation.saga import resumable
from services.generation.state import Generation, Stage, Status
from services.generation.statistics import Statistics
from services.generation.store import Store
from services.generation.uploads import JudgedImage, Uploads
from services.generation.watchers import OVERLAP, Watchers
from services.runtime.channel import WATCHING
from services.runtime.errors import NotFound, PreconditionFailed, Unavailable
from services.runtime.failpoints import failpoint
from services.runtime.shielding import Shielded
from services.runtime.telemetry import get_logger
from services.runtime.tracing import join_trace

__all__ = ["DOMAIN", "GenerationServicer", "PredictionEventServicer"]

DOMAIN = "generation.reelworks.dev"
PAGE_SIZE_DEFAULT = 50
PAGE_BYTES_MAX = 2 * 1024 * 1024
"""Of a page, which is cut shorter than asked for rather than exceed what callers receive."""
CANCEL_S_MAX = 5.0
"""How long a cancel is waited for; it goes on without the caller."""
ANSWER_S = 0.5
"""What is left of the caller's time for the answer."""
logger = get_logger(__name__)

_ODD = (Disposition.ORPHAN, Disposition.UNMATCHED, Disposition.UNREADABLE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """GenerationService on a store; requests are valid when they come here."""

    def __init__(
        self,
        store: Store,
        history: History,
        watchers: Watchers,
        offer: Offer,
        intake: Intake,
        creation: Creation,
        messages: Messages,
        cancel_policy: CancelPolicy,
        statistics: Statistics,
        compared: Callable[[], Reconciliation | None],
        uploads: Uploads,
        shielded: Shielded,
    ) -> None:
        self._store = store
        self._history = history
        self._watchers = watchers
        self._offer = offer
        self._intake = intake
        self._creation = creation
        self._messages = messages
        self._cancel_policy = cancel_policy
        self._statistics = statistics
        self._compared = compared
        self._uploads = uploads
        self._shielded = shielded

    async def ListModels(  # noqa: N802  The contract's name, as all below.
        self, request: generation_pb2.ListModelsRequest, context: Any
    ) -> generation_pb2.ListModelsResponse:
        """Answers the catalog."""
        del request, context
        return generation_pb2.ListModelsResponse(
            models=map(model_message, self._offer.catalog.models)
        )

    async def QuoteGeneration(  # noqa: N802
        self, request: generation_pb2.QuoteGenerationRequest, context: Any
    ) -> generation_pb2.QuoteGenerationResponse:
        """Answers what a video would cost, and when it would be there."""
        del context
        return quote_message(await self._intake.quote(request.user_id, request_of(request)))

    async def UploadImage(  # noqa: N802
        self, request: generation_pb2.UploadImageRequest, context: Any
    ) -> generation_pb2.UploadImageResponse:
        """Stores an image to start videos from."""
        del context
        image = await self._uploads.judge(request.user_id, request.content)
        if isinstance(image, JudgedImage):
            # What is half stored when its caller leaves would be cleared away, and come again.
            image = await self._shielded.finish(self._uploads.store(image))
        return image_message(image)

    async def CreateGeneration(  # noqa: N802
        self, request: generation_pb2.CreateGenerationRequest, context: Any
    ) -> generation_pb2.Generation:
        """Records a generation and reserves its price."""
        del context
        wanted = request_of(request)

        async def price() -> int:
            return await self._intake.admit(request.user_id, wanted, request.quote_token)

        return await self._messages.of(
            await self._creation.create(request.user_id, request.generation_id, wanted, price)
        )

    async def RetryGeneration(  # noqa: N802
        self, request: generation_pb2.RetryGenerationRequest, context: Any
    ) -> generation_pb2.Generation:
        """Makes what failed or was canceled again."""
        del context
        failed = await self._find(request.user_id, request.generation_id)
        if failed.status not in (Status.FAILED, Status.CANCELED):
            raise PreconditionFailed(
                "NOT_RETRYABLE",
                "Only a generation that FAILED or was CANCELED can be made again.",
                generation_id=failed.generation_id,
                status=failed.status,
            )
        wanted = failed.request
        if request.keep_seed and wanted.seed is None:
            seed = await self._history.last_seed(failed.generation_id)
            wanted = dataclasses.replace(wanted, seed=seed)

        async def price() -> int:
            if await self._uploads.violation(request.user_id, wanted.image_uri) is not None:
                raise PreconditionFailed(
                    "IMAGE_REMOVED",
                    "Its image was removed; make a new generation with it.",
                    generation_id=failed.generation_id,
                )
            return await self._intake.admit(request.user_id, wanted)

        return await self._messages.of(
            await self._creation.create(
                request.user_id, request.new_generation_id, wanted, price, failed.generation_id
            )
        )

    async def GetGeneration(  # noqa: N802
        self, request: generation_pb2.GetGenerationRequest, context: Any
    ) -> generation_pb2.Generation:
        """Answers a generation as it is now."""
        del context
        return await self._messages.of(await self._find(request.user_id, request.generation_id))

    async def ListGenerations(  # noqa: N802
        self, request: generation_pb2.ListGenerationsRequest, context: Any
    ) -> generation_pb2.ListGenerationsResponse:
        """Answers a page of a user's history."""
        del context
        size = request.page_size or PAGE_SIZE_DEFAULT
        wanted = Filter(status_filter(request.status), kind_of(request.kind), request.query)
        found = await self._history.page(request.user_id, size, wanted, cursor_in(request))
        page = generation_pb2.ListGenerationsResponse()
        behind, size_bytes = found.next, 0
        for generation in found.generations:
            message = await self._messages.of(generation)
            size_bytes += message.ByteSize()
            if size_bytes > PAGE_BYTES_MAX:
                last = page.generations[-1]
                behind = Cursor(last.create_time.ToDatetime(UTC), last.generation_id)
                break
            page.generations.append(message)
        if behind is not None:
            page.next_page_token = page_token(request, behind)
        return page

    async def WatchGenerations(  # noqa: N802  The stub knows no generator.
        self, request: generation_pb2.WatchGenerationsRequest, context: Any
    ) -> AsyncIterator[generation_pb2.WatchGenerationsResponse]:
        """Streams a user's generations: as they are, then on every change."""
        since = None
        if request.HasField("updated_after"):
            # Nothing was updated before the epoch, and earlier times would leave the calendar.
            since = max(request.updated_after.ToDatetime(UTC), _EPOCH) - OVERLAP
        known = self._history.to_watch(request.user_id, request.generation_ids, since)
        if request.known_only:
            stream = known
        else:
            metadata = ((WATCHING, "1"),)
            stream = self._watchers.watch(
                request.user_id, known, lambda: context.send_initial_metadata(metadata)
            )
        async for generation in stream:
            message = await self._messages.of(generation)
            yield generation_pb2.WatchGenerationsResponse(generation=message)
        if not request.known_only:
            raise Unavailable("", "The service is stopping; watch again.")

    async def CancelGeneration(  # noqa: N802
        self, request: generation_pb2.CancelGenerationRequest, context: Any
    ) -> generation_pb2.Generation:
        """Cancels a generation, and waits a little for what comes of it."""
        time_left_s = context.time_remaining() or CANCEL_S_MAX
        wait_s = min(CANCEL_S_MAX, time_left_s - ANSWER_S)
        found = await self._find(request.user_id, request.generation_id)
        event = CancelRequested(self._cancel_policy)
        failpoint("cancel.received")
        generation = await self._store.happen(Happen(found.generation_id, event, found.fence))
        failpoint("cancel.recorded")
        match judge_cancel(generation):
            case Verdict.ALREADY_SUCCEEDED:
                raise PreconditionFailed(
                    "ALREADY_SUCCEEDED",
                    "The video exists; there is nothing left to cancel.",
                    generation_id=generation.generation_id,
                )
            case Verdict.GENERATION_ENDED:
                raise PreconditionFailed(
                    "GENERATION_ENDED",
                    "The generation has failed; nothing is charged for it.",
                    generation_id=generation.generation_id,
                    status=generation.status,
                )
            case Verdict.ACCEPTED | Verdict.REPEATED:
                return await self._messages.of(await self._settled(generation, wait_s))

    async def DeleteGenerations(  # noqa: N802
        self, request: generation_pb2.DeleteGenerationsRequest, context: Any
    ) -> generation_pb2.DeleteGenerationsResponse:
        """Removes ended generations from a user's history."""
        del context
        wanted = list(dict.fromkeys(request.generation_ids))
        named = await self._history.named(wanted)
        found = [
            named[id_] for id_ in wanted if id_ in named and named[id_].user_id == request.user_id
        ]
        after = await asyncio.gather(
            *(self._store.happen(Happen(g.generation_id, Deleted(), g.fence)) for g in found)
        )
        known = {g.generation_id for g in found}
        return generation_pb2.DeleteGenerationsResponse(
            deleted_ids=[g.generation_id for g in after if g.deleted_at is not None],
            unfinished_ids=[g.generation_id for g in after if g.deleted_at is None],
            unknown_ids=[id_ for id_ in wanted if id_ not in known],
        )

    async def GetStats(  # noqa: N802
        self, request: generation_pb2.GetStatsRequest, context: Any
    ) -> generation_pb2.GetStatsResponse:
        """Answers how the service is doing."""
        del request, context
        return stats_message(await self._statistics.read(), self._compared())

    async def ListParked(  # noqa: N802
        self, request: generation_pb2.ListParkedRequest, context: Any
    ) -> generation_pb2.ListParkedResponse:
        """Answers a page of what an operator must look at."""
        del context
        size = request.page_size or PAGE_SIZE_DEFAULT
        found = await self._history.parked_page(size + 1, parked_cursor_in(request))
        page = generation_pb2.ListParkedResponse(
            parked=[
                generation_pb2.ListParkedResponse.Parked(
                    generation=await self._messages.of(generation),
                    stage=stage_name(generation.parked_from or Stage.PARKED),
                    park_time=timestamp(generation.stage_since),
                    reason=generation.park_reason or "",
                )
                for generation in found[:size]
            ]
        )
        if len(found) > size:
            last = found[size - 1]
            page.next_page_token = parked_token(Cursor(last.stage_since, last.generation_id))
        return page

    async def ResumeGeneration(  # noqa: N802
        self, request: generation_pb2.ResumeGenerationRequest, context: Any
    ) -> generation_pb2.Generation:
        """Lets a parked generation go on."""
        del context
        found = await self._history.find_any(request.generation_id)
        if found is None:
            raise _not_found(request.generation_id)
        stage = stage_of(request.stage)
        if found.stage is not Stage.PARKED:
            # A repetition finds that it went on.
            if await self._history.was_resumed(found.generation_id):
                return await self._messages.of(found)
            raise PreconditionFailed(
                "NOT_PARKED",
                "The generation is not parked.",
                generation_id=found.generation_id,
                stage=stage_name(found.stage),
            )
        possible = resumable(found)
        if stage is not None and stage not in possible:
            raise PreconditionFailed(
                "STAGE_NOT_POSSIBLE",
                f"It was parked in {found.parked_from}, and cannot go on at {stage}.",
                generation_id=found.generation_id,
                stage=stage_name(stage),
                possible=", ".join(stage_name(one) for one in possible),
            )
        return await self._messages.of(
            await self._store.happen(Happen(found.generation_id, Resumed(stage), found.fence))
        )

    async def _find(self, user_id: str, generation_id: str) -> Generation:
        generation = await self._history.find(user_id, generation_id)
        if generation is None:
            raise _not_found(generation_id)
        return generation

    async def _settled(self, generation: Generation, seconds: float) -> Generation:
        """Returns a canceled generation once it has ended, or as far as it is in a few seconds."""
        user_id, generation_id = generation.user_id, generation.generation_id
        if generation.stage is Stage.PARKED:
            return generation
        known = self._history.to_watch(user_id, [generation_id], None)
        try:
            async with (
                asyncio.timeout(seconds),
                aclosing(self._watchers.watch(user_id, known)) as changes,
            ):
                async for changed in changes:
                    if changed.generation_id == generation_id and changed.stage.is_final:
                        return changed
        except TimeoutError:
            pass
        return await self._find(user_id, generation_id)


class PredictionEventServicer(prediction_event_pb2_grpc.PredictionEventServiceServicer):
    """PredictionEventService on a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def DeliverPredictionEvent(  # noqa: N802
        self, request: prediction_event_pb2.DeliverPredictionEventRequest, context: Any
    ) -> prediction_event_pb2.DeliverPredictionEventResponse:
        """Records an event and lets its generation take its step."""
        del context
        try:
            prediction = parse_prediction(request.payload)
        except NotAPrediction:
            prediction = None
        failpoint("event.received")
        delivered = await self._store.deliver(
            Deliver(
                webhook_id=request.webhook_id,
                body=request.payload,
                generation_id=request.generation_id,
                attempt=request.attempt,
                received_at=request.received_time.ToDatetime(UTC),
                prediction=prediction,
            )
        )
        failpoint("event.recorded")
        if delivered.generation is not None:
            join_trace(
                "prediction event",
                delivered.generation.traceparent,
                {
                    "reelworks.generation_id": delivered.generation.generation_id,
                    "reelworks.webhook_id": request.webhook_id,
                },
            )
        if delivered.disposition in _ODD:
            # Something runs at the provider that we do not use, or that is not ours.
            logger.warning(
                "odd event",
                disposition=delivered.disposition,
                webhook_id=request.webhook_id,
                generation_id=request.generation_id,
                job_id=prediction.job_id if prediction else None,
            )
        response = prediction_event_pb2.DeliverPredictionEventResponse
        return response(disposition=delivered.disposition.value)


def _not_found(generation_id: str) -> NotFound:
    return NotFound(
        "GENERATION_NOT_FOUND",
        f"There is no generation {generation_id}.",
        generation_id=generation_id,
    )
