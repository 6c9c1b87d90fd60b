"""Generations: what can be asked for, what was asked for, and how far it is."""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

import grpc
import uuid_utils
from reelworks.generation.v1 import generation_pb2, generation_pb2_grpc

from services.client.connection import Connection
from services.client.watching import PATIENCE_S, watch_again
from services.client.wire import moment, moment_if_set, named, named_on_wire, timestamp
from services.runtime.channel import invoke

__all__ = [
    "Generation",
    "GenerationClient",
    "GenerationError",
    "GenerationErrorCode",
    "GenerationPage",
    "Kind",
    "Model",
    "ModelResolution",
    "Stage",
    "Status",
    "new_generation_id",
]

EPOCH = datetime.fromtimestamp(0, UTC)


class Kind(StrEnum):
    """What a generation makes."""

    UNKNOWN = "UNKNOWN"
    TEXT_TO_VIDEO = "TEXT_TO_VIDEO"
    IMAGE_TO_VIDEO = "IMAGE_TO_VIDEO"


class Status(StrEnum):
    """How far a generation is, in the product's words."""

    UNKNOWN = "UNKNOWN"
    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class Stage(StrEnum):
    """What is being done about a generation, finer than its status."""

    UNKNOWN = "UNKNOWN"
    RESERVING = "RESERVING"
    READY = "READY"
    SUBMITTING = "SUBMITTING"
    RUNNING = "RUNNING"
    CANCELING = "CANCELING"
    ARCHIVING = "ARCHIVING"
    COMMITTING = "COMMITTING"
    REFUNDING = "REFUNDING"
    PARKED = "PARKED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    REJECTED = "REJECTED"


class GenerationErrorCode(StrEnum):
    """Why a generation failed."""

    UNKNOWN = "UNKNOWN"
    RESERVE_TIMEOUT = "RESERVE_TIMEOUT"
    QUEUE_TIMEOUT = "QUEUE_TIMEOUT"
    SUBMIT_UNCERTAIN = "SUBMIT_UNCERTAIN"
    INPUT_REJECTED = "INPUT_REJECTED"
    MODEL_FAILED = "MODEL_FAILED"
    MODEL_TIMED_OUT = "MODEL_TIMED_OUT"
    OUTPUT_LOST = "OUTPUT_LOST"
    INSUFFICIENT_CREDITS = "INSUFFICIENT_CREDITS"
    ACCOUNT_NOT_FOUND = "ACCOUNT_NOT_FOUND"


@dataclass(frozen=True, slots=True)
class GenerationError:
    """Why a generation failed."""

    code: GenerationErrorCode
    """The kind of failure."""
    message: str
    """A sentence for the user."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A video being made, or made."""

    user_id: str
    """Whose it is."""
    generation_id: str
    """The caller's id of it, a UUID."""
    kind: Kind
    """What it makes."""
    model: str
    """The catalog's model."""
    resolution: str
    """`480p` or `720p`."""
    prompt: str
    """What the video shows."""
    negative_prompt: str
    """What the video shall not show; empty if nothing was said."""
    image_uri: str
    """The image that it starts from; empty for text to video."""
    aspect_ratio: str
    """`16:9` or `9:16`; empty if the model's default was taken."""
    seed: int | None
    """The seed that the caller chose, None if the choice was left open."""
    status: Status
    """How far it is; a final status is shown only when the money is settled."""
    stage: Stage
    """What is being done about it."""
    progress_percent: int
    """How far the provider is, 0 to 100; 100 only when COMPLETED."""
    error: GenerationError | None
    """Why it failed, None if it did not."""
    cost_credits: int
    """The price, fixed when it was created."""
    charged_credits: int
    """What was charged; 0 until COMPLETED."""
    job_id: str
    """The provider's id of the prediction; empty until known."""
    attempt: int
    """How often it was submitted."""
    video_uri: str
    """Where the video can be had now; empty until COMPLETED."""
    created_at: datetime
    """When it was created."""
    submitted_at: datetime | None
    """When the provider had it; None until then."""
    started_at: datetime | None
    """When the provider began to work; None until known."""
    finished_at: datetime | None
    """When it ended; None until then."""
    updated_at: datetime
    """When it last changed visibly."""
    version: int
    """Counts the visible changes, from 1 on."""

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self.status in (Status.COMPLETED, Status.FAILED, Status.CANCELED)


@dataclass(frozen=True, slots=True)
class GenerationPage:
    """A part of a user's history, newest first."""

    generations: tuple[Generation, ...]
    """The generations of this page."""
    next_page_token: str
    """Asks for the next page; empty at the end."""


@dataclass(frozen=True, slots=True)
class ModelResolution:
    """A size of video that a model makes."""

    resolution: str
    """`480p` or `720p`."""
    price_credits: int
    """The price of one video."""
    parameters: tuple[str, ...]
    """Optional parameters that can be set."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that can be asked for."""

    model: str
    """The id to ask for."""
    display_name: str
    """A name for people."""
    kind: Kind
    """What it makes."""
    resolutions: tuple[ModelResolution, ...]
    """Its sizes of video, cheapest first."""
    prompt_characters_min: int
    """Least number of characters in a prompt."""
    prompt_characters_max: int
    """Greatest number of characters in a prompt."""


def new_generation_id() -> str:
    """Returns an id for a new generation; ids of later calls sort after it."""
    return str(uuid_utils.uuid7())


class GenerationClient(Connection):
    """Calls the generation service; every call can be repeated with the same id.

    Each method raises ServiceError, whose `reason` is one of the service's.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._stub = generation_pb2_grpc.GenerationServiceStub(self._channel)

    async def list_models(self) -> tuple[Model, ...]:
        """Returns the catalog, in the order in which to offer it."""
        response = await invoke(self._stub.ListModels, generation_pb2.ListModelsRequest())
        return tuple(_model(model) for model in response.models)

    async def create(
        self,
        user_id: str,
        kind: Kind,
        model: str,
        resolution: str,
        prompt: str,
        *,
        negative_prompt: str = "",
        image_uri: str = "",
        aspect_ratio: str = "",
        seed: int | None = None,
        generation_id: str | None = None,
    ) -> Generation:
        """Starts the making of a video and returns it as it is now.

        `generation_id` is the key of the call. None takes a new one; a caller that may have to
        repeat the call brings one of `new_generation_id`.
        """
        request = generation_pb2.CreateGenerationRequest(
            user_id=user_id,
            generation_id=new_generation_id() if generation_id is None else generation_id,
            kind=named_on_wire(kind, "KIND_UNSPECIFIED"),
            model=model,
            resolution=resolution,
            prompt=prompt,
            negative_prompt=negative_prompt,
            image_uri=image_uri,
            aspect_ratio=aspect_ratio,
            seed=seed,
        )
        return _generation(await invoke(self._stub.CreateGeneration, request))

    async def get(self, user_id: str, generation_id: str) -> Generation:
        """Returns a generation as it is now."""
        request = generation_pb2.GetGenerationRequest(user_id=user_id, generation_id=generation_id)
        return _generation(await invoke(self._stub.GetGeneration, request))

    async def list(
        self,
        user_id: str,
        page_size: int = 0,
        page_token: str = "",
        *,
        status: Status | None = None,
        kind: Kind | None = None,
    ) -> GenerationPage:
        """Returns a page of a user's history, newest first; 0 takes 50 generations."""
        request = generation_pb2.ListGenerationsRequest(
            user_id=user_id,
            page_size=page_size,
            page_token=page_token,
            status=None if status is None else named_on_wire(status, "STATUS_UNSPECIFIED"),
            kind=None if kind is None else named_on_wire(kind, "KIND_UNSPECIFIED"),
        )
        response = await invoke(self._stub.ListGenerations, request)
        return GenerationPage(
            tuple(_generation(generation) for generation in response.generations),
            response.next_page_token,
        )

    async def history(
        self,
        user_id: str,
        page_size: int = 0,
        *,
        status: Status | None = None,
        kind: Kind | None = None,
    ) -> AsyncGenerator[Generation]:
        """Yields a user's history, newest first, asking for pages as they are used."""
        page_token = ""
        while True:
            page = await self.list(user_id, page_size, page_token, status=status, kind=kind)
            for generation in page.generations:
                yield generation
            page_token = page.next_page_token
            if not page_token:
                return

    async def watch(
        self,
        user_id: str,
        generation_ids: Sequence[str] = (),
        updated_after: datetime | None = None,
        patience_s: float = PATIENCE_S,
    ) -> AsyncGenerator[Generation]:
        """Yields the generations of a user: those named and the unfinished ones, then each change.

        Goes on when the service went away and came back, and never yields an older version after a
        newer one. Raises Unavailable when the service stays away for `patience_s`. It has no end of
        its own: leave it by `contextlib.aclosing`, or the service streams on.
        """
        versions: dict[str, int] = {}

        def open_stream() -> grpc.aio.UnaryStreamCall[
            generation_pb2.WatchGenerationsRequest, generation_pb2.WatchGenerationsResponse
        ]:
            # A later stream begins where the one before it ended.
            return self._stub.WatchGenerations(
                generation_pb2.WatchGenerationsRequest(
                    user_id=user_id,
                    generation_ids=generation_ids,
                    updated_after=None if updated_after is None else timestamp(updated_after),
                )
            )

        async with contextlib.aclosing(watch_again(open_stream, patience_s)) as responses:
            async for response in responses:
                generation = _generation(response.generation)
                updated_after = max(updated_after or EPOCH, generation.updated_at)
                if generation.version >= versions.get(generation.generation_id, 0):
                    versions[generation.generation_id] = generation.version
                    yield generation


def _model(message: generation_pb2.Model) -> Model:
    return Model(
        model=message.model,
        display_name=message.display_name,
        kind=named(Kind, generation_pb2.Generation.Kind, message.kind),
        resolutions=tuple(
            ModelResolution(r.resolution, r.price_credits, tuple(r.parameters))
            for r in message.resolutions
        ),
        prompt_characters_min=message.prompt_characters_min,
        prompt_characters_max=message.prompt_characters_max,
    )


def _generation(message: generation_pb2.Generation) -> Generation:
    generation = generation_pb2.Generation
    error = None
    if message.HasField("error"):
        code = named(GenerationErrorCode, generation.Error.Code, message.error.code)
        error = GenerationError(code, message.error.message)
    return Generation(
        user_id=message.user_id,
        generation_id=message.generation_id,
        kind=named(Kind, generation.Kind, message.kind),
        model=message.model,
        resolution=message.resolution,
        prompt=message.prompt,
        negative_prompt=message.negative_prompt,
        image_uri=message.image_uri,
        aspect_ratio=message.aspect_ratio,
        seed=message.seed if message.HasField("seed") else None,
        status=named(Status, generation.Status, message.status),
        stage=named(Stage, generation.Stage, message.stage, prefix="STAGE_"),
        progress_percent=message.progress_percent,
        error=error,
        cost_credits=message.cost_credits,
        charged_credits=message.charged_credits,
        job_id=message.job_id,
        attempt=message.attempt,
        video_uri=message.video_uri,
        created_at=moment(message.create_time),
        submitted_at=moment_if_set(message, "submit_time"),
        started_at=moment_if_set(message, "start_time"),
        finished_at=moment_if_set(message, "finish_time"),
        updated_at=moment(message.update_time),
        version=message.version,
    )
