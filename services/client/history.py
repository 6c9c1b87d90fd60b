"""What the generation service tells of generations, as plain values."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from reelworks.generation.v1 import generation_pb2

from services.client.wire import moment, moment_if_set, named

__all__ = [
    "DeletedGenerations",
    "Eta",
    "Generation",
    "GenerationError",
    "GenerationErrorCode",
    "GenerationPage",
    "Kind",
    "Stage",
    "Status",
    "eta_of",
    "generation_of",
]


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
    """Why there is no video."""

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
    CANCELED = "CANCELED"


@dataclass(frozen=True, slots=True)
class GenerationError:
    """Why a generation failed."""

    code: GenerationErrorCode
    """The kind of failure."""
    message: str
    """A sentence for the user."""


@dataclass(frozen=True, slots=True)
class Eta:
    """When something will be done, going by how long the like took lately."""

    likely_at: datetime
    """Half of the like took less."""
    latest_at: datetime
    """Nine of ten took less."""


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
    """Why there is no video; None unless it FAILED or was CANCELED."""
    cost_credits: int
    """The price, fixed when it was created."""
    charged_credits: int
    """What was charged: 0 until COMPLETED, or what a cancel did not give back."""
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
    """Counts the visible changes, from 1 on; what is computed when read is outside of it."""
    queue_position: int | None
    """Its place among those that wait to be submitted, from 1 on; None if it does not wait."""
    eta: Eta | None
    """When the video will be there; None if that cannot be said, or no longer matters."""
    thumbnail_uri: str
    """A still of the video, JPEG; empty if there is none."""
    video_seconds: float | None
    """How long the video runs; None until it is stored."""
    retry_of: str
    """The generation that this one makes again; empty if none."""
    cancel_refund_credits: int | None
    """What a cancel gives back; None if it cannot be canceled any more."""
    deleted_at: datetime | None
    """When it was deleted from the user's history; None if it was not."""
    media_removed_at: datetime | None
    """When its video was removed from storage; None if it was not."""

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
class DeletedGenerations:
    """What became of a wish to delete generations."""

    deleted_ids: tuple[str, ...]
    """Those that are deleted now."""
    unfinished_ids: tuple[str, ...]
    """Those that have not ended, and so stay: cancel them first."""
    unknown_ids: tuple[str, ...]
    """Those that the user does not have."""


def generation_of(message: generation_pb2.Generation) -> Generation:
    """Returns the generation that a message holds."""
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
        queue_position=message.queue_position if message.HasField("queue_position") else None,
        eta=eta_of(message),
        thumbnail_uri=message.thumbnail_uri,
        video_seconds=message.video_seconds if message.HasField("video_seconds") else None,
        retry_of=message.retry_of,
        cancel_refund_credits=(
            message.cancel_refund_credits if message.HasField("cancel_refund_credits") else None
        ),
        deleted_at=moment_if_set(message, "delete_time"),
        media_removed_at=moment_if_set(message, "media_remove_time"),
    )


def eta_of(message: Any) -> Eta | None:
    """Returns the ETA of a message that has one, None if it is unset."""
    if not message.HasField("eta"):
        return None
    return Eta(moment(message.eta.likely_time), moment(message.eta.latest_time))
