"""Answers the calls of GenerationService and PredictionEventService."""

import dataclasses
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf import timestamp_pb2
from reelworks.generation.v1 import (
    generation_pb2,
    generation_pb2_grpc,
    prediction_event_pb2,
    prediction_event_pb2_grpc,
)

from services.generation.catalog import (
    PROMPT_CHARACTERS_MAX,
    PROMPT_CHARACTERS_MIN,
    Catalog,
    Model,
)
from services.generation.commands import Begin, Deliver, Happen
from services.generation.history import Cursor, History
from services.generation.prediction import NotAPrediction, parse_prediction
from services.generation.requests import (
    catalog_violations,
    cursor_in,
    kind_of,
    page_token,
    request_of,
    status_filter,
)
from services.generation.settlement import Settlement
from services.generation.state import FailureCode, Generation, Request, Stage
from services.generation.store import Store
from services.generation.watchers import OVERLAP, Watchers
from services.runtime.errors import (
    AlreadyExists,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
    Unavailable,
)
from services.runtime.shielding import Shielded

__all__ = ["DOMAIN", "GenerationServicer", "Links", "PredictionEventServicer"]

DOMAIN = "generation.reelworks.dev"
PAGE_SIZE_DEFAULT = 50
PAGE_BYTES_MAX = 2 * 1024 * 1024
"""Of a page, which is cut shorter than asked for rather than exceed what callers receive."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Wire = generation_pb2.Generation


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """GenerationService on a store; requests are valid when they come here."""

    def __init__(
        self,
        store: Store,
        history: History,
        watchers: Watchers,
        catalog: Catalog,
        settlement: Settlement,
        shielded: Shielded,
        links: "Links",
    ) -> None:
        self._store = store
        self._history = history
        self._watchers = watchers
        self._catalog = catalog
        self._settlement = settlement
        self._shielded = shielded
        self._links = links

    async def ListModels(  # noqa: N802  The contract's name, as all below.
        self, request: generation_pb2.ListModelsRequest, context: Any
    ) -> generation_pb2.ListModelsResponse:
        """Answers the catalog."""
        del request, context
        return generation_pb2.ListModelsResponse(models=map(_model, self._catalog.models))

    async def CreateGeneration(  # noqa: N802
        self, request: generation_pb2.CreateGenerationRequest, context: Any
    ) -> generation_pb2.Generation:
        """Records a generation and reserves its price."""
        del context
        wanted = request_of(request)
        # The id before the catalog: what was accepted once is not refused because models changed.
        known = await self._history.find_any(request.generation_id)
        generation = known or await self._begin(request, wanted)
        _check_same(generation, request.user_id, wanted)
        if generation.stage is Stage.RESERVING:
            # Neither the reservation nor its record may be lost because the caller leaves.
            generation = await self._shielded.finish(self._reserve(generation))
        return self._answer_create(generation)

    async def GetGeneration(  # noqa: N802
        self, request: generation_pb2.GetGenerationRequest, context: Any
    ) -> generation_pb2.Generation:
        """Answers a generation as it is now."""
        del context
        generation = await self._history.find(request.user_id, request.generation_id)
        if generation is None:
            raise NotFound(
                "GENERATION_NOT_FOUND",
                f"There is no generation {request.generation_id}.",
                generation_id=request.generation_id,
            )
        return self._links.message(generation)

    async def ListGenerations(  # noqa: N802
        self, request: generation_pb2.ListGenerationsRequest, context: Any
    ) -> generation_pb2.ListGenerationsResponse:
        """Answers a page of a user's history."""
        del context
        size = request.page_size or PAGE_SIZE_DEFAULT
        found = await self._history.page(
            request.user_id,
            limit=size + 1,
            status=status_filter(request.status),
            kind=kind_of(request.kind),
            after=cursor_in(request),
        )
        page = generation_pb2.ListGenerationsResponse()
        size_bytes = 0
        for generation in found[:size]:
            message = self._links.message(generation)
            size_bytes += message.ByteSize()
            if size_bytes > PAGE_BYTES_MAX:
                break
            page.generations.append(message)
        shown = len(page.generations)
        if shown < len(found):
            last = found[shown - 1]
            page.next_page_token = page_token(request, Cursor(last.created_at, last.generation_id))
        return page

    async def WatchGenerations(  # noqa: N802  The stub knows no generator.
        self, request: generation_pb2.WatchGenerationsRequest, context: Any
    ) -> AsyncIterator[generation_pb2.WatchGenerationsResponse]:
        """Streams a user's generations: as they are, then on every change."""
        del context
        since = None
        if request.HasField("updated_after"):
            # Nothing was updated before the epoch, and earlier times would leave the calendar.
            since = max(request.updated_after.ToDatetime(UTC), _EPOCH) - OVERLAP
        known = self._history.to_watch(request.user_id, request.generation_ids, since)
        async for generation in self._watchers.watch(request.user_id, known):
            yield generation_pb2.WatchGenerationsResponse(
                generation=self._links.message(generation)
            )
        raise Unavailable("", "The service is stopping; watch again.")

    async def _begin(
        self, request: generation_pb2.CreateGenerationRequest, wanted: Request
    ) -> Generation:
        """Returns the new generation, or the one that somebody created in the same moment."""
        violations = list(catalog_violations(self._catalog, request))
        if violations:
            raise InvalidRequest(violations)
        price_credits = self._catalog.variant_of(wanted).price_credits
        begun = await self._store.begin(
            Begin(request.generation_id, request.user_id, wanted, price_credits)
        )
        return begun.generation

    async def _reserve(self, generation: Generation) -> Generation:
        event = await self._settlement.reserve(generation)
        return await self._store.happen(Happen(generation.generation_id, event, generation.fence))

    def _answer_create(self, generation: Generation) -> generation_pb2.Generation:
        match generation.stage:
            case Stage.RESERVING:
                raise Unavailable(
                    "CREDITS_UNAVAILABLE",
                    "The price could not be reserved yet; repeat the call with the same id.",
                    generation_id=generation.generation_id,
                )
            case Stage.REJECTED:
                raise _refusal(generation)
            case _:
                return self._links.message(generation)


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
        response = prediction_event_pb2.DeliverPredictionEventResponse
        return response(disposition=delivered.disposition.value)


class Links:
    """Turns generations into messages, with addresses that work now."""

    def __init__(self, link: Any) -> None:
        self._link = link

    def message(self, generation: Generation) -> generation_pb2.Generation:
        """Returns the message of a generation."""
        request = generation.request
        output, failure = generation.output, generation.failure
        message = _Wire(
            user_id=generation.user_id,
            generation_id=generation.generation_id,
            kind=request.kind.value,
            model=request.model,
            resolution=request.resolution,
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            image_uri=request.image_uri,
            aspect_ratio=request.aspect_ratio,
            seed=request.seed,
            status=generation.status.value,
            stage=f"STAGE_{generation.stage.value}",
            progress_percent=generation.progress_percent,
            cost_credits=generation.price_credits,
            charged_credits=generation.charged_credits,
            job_id=generation.job_id or "",
            attempt=generation.attempt,
            create_time=_timestamp(generation.created_at),
            submit_time=_timestamp(generation.submitted_at),
            start_time=_timestamp(generation.started_at),
            finish_time=_timestamp(generation.finished_at),
            update_time=_timestamp(generation.updated_at),
            version=generation.version,
        )
        if generation.stage is Stage.COMPLETED and output is not None:
            message.video_uri = self._link(output.key)
        # While the provider is still asked, nothing is decided.
        if failure is not None and generation.stage.is_final:
            error = _Wire.Error(code=failure.code.value, message=failure.message)
            message.error.CopyFrom(error)
        return message


def _check_same(generation: Generation, user_id: str, wanted: Request) -> None:
    """Raises AlreadyExists if an id was used before for something else."""
    reused = "GENERATION_ID_REUSED"
    if generation.user_id != user_id:
        raise AlreadyExists(reused, "The generation id is taken; choose another.")
    before: Mapping[str, Any] = dataclasses.asdict(generation.request)
    for field, value in dataclasses.asdict(wanted).items():
        if before[field] != value:
            was = "" if before[field] is None else before[field]
            raise AlreadyExists(
                reused, f"The generation id was used with another {field}.", field=field, was=was
            )


def _refusal(generation: Generation) -> PreconditionFailed:
    """Returns the error that a generation was refused with, the same every time."""
    failure = generation.failure
    if failure is not None and failure.code is FailureCode.ACCOUNT_NOT_FOUND:
        return PreconditionFailed(
            failure.code, "The user has no account; open one first.", user_id=generation.user_id
        )
    available = generation.rejected_available or 0
    return PreconditionFailed(
        FailureCode.INSUFFICIENT_CREDITS,
        f"{generation.price_credits} credits are required, {available} are available.",
        required=generation.price_credits,
        available=available,
    )


def _model(model: Model) -> generation_pb2.Model:
    return generation_pb2.Model(
        model=model.model,
        display_name=model.display_name,
        kind=model.kind.value,
        resolutions=[
            generation_pb2.Model.Resolution(
                resolution=variant.resolution,
                price_credits=variant.price_credits,
                parameters=variant.parameters,
            )
            for variant in model.variants
        ],
        prompt_characters_min=PROMPT_CHARACTERS_MIN,
        prompt_characters_max=PROMPT_CHARACTERS_MAX,
    )


def _timestamp(moment: datetime | None) -> timestamp_pb2.Timestamp | None:
    if moment is None:
        return None
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
