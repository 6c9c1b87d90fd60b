"""What a generation is: its request, its stage, and everything its row remembers."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import assert_never

__all__ = [
    "Failure",
    "FailureCode",
    "Generation",
    "Kind",
    "Output",
    "Request",
    "Stage",
    "Status",
    "status_of",
]


class Kind(StrEnum):
    """What a generation makes; the names are the contract's."""

    TEXT_TO_VIDEO = "TEXT_TO_VIDEO"
    IMAGE_TO_VIDEO = "IMAGE_TO_VIDEO"


class Status(StrEnum):
    """How far a generation is, in the product's words."""

    QUEUED = "QUEUED"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class Stage(StrEnum):
    """What is to be done about a generation."""

    RESERVING = "RESERVING"
    READY = "READY"
    SUBMITTING = "SUBMITTING"
    RUNNING = "RUNNING"
    CANCELING = "CANCELING"
    ARCHIVING = "ARCHIVING"
    COMMITTING = "COMMITTING"
    REFUNDING = "REFUNDING"
    PARKED = "PARKED"
    REJECTED = "REJECTED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"

    @property
    def is_final(self) -> bool:
        """Whether nothing is left to do."""
        return self in _ENDS


_ENDS = frozenset({Stage.REJECTED, Stage.COMPLETED, Stage.FAILED, Stage.CANCELED})


class FailureCode(StrEnum):
    """Why a generation failed; the names are the contract's."""

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
class Request:
    """What was asked for; never changes. Empty text and None mean: not chosen."""

    kind: Kind
    model: str
    resolution: str
    prompt: str
    negative_prompt: str = ""
    image_uri: str = ""
    aspect_ratio: str = ""
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there will be no video."""

    code: FailureCode
    message: str
    """A sentence for the user."""


@dataclass(frozen=True, slots=True)
class Output:
    """The video in our storage."""

    key: str
    size_bytes: int
    sha256: str
    video_seconds: float | None = None
    thumbnail_key: str | None = None
    """A still of it in our storage; None if none could be made."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation as it is at one moment: the row of its table."""

    generation_id: str
    user_id: str
    request: Request
    price_credits: int
    stage: Stage
    stage_since: datetime
    due_at: datetime | None
    """When a worker shall take it up, as a timer or as the end of another's lease; None = never."""
    fence: int
    """Grows with every claim and change; a plan made under a smaller one is void."""
    created_at: datetime
    deadline_at: datetime
    updated_at: datetime
    version: int = 1
    """Counts the changes that a user can see."""
    claims: int = 0
    """How often its effect was begun since one last ended: many mean that it kills its worker."""
    claimed_by: str | None = None
    """The replica that claimed it last."""
    failures: int = 0
    """Failures of the present stage's effect in a row, whatever their cause."""
    defects: int = 0
    """Those of them that no outage explains."""
    attempt: int = 0
    """How often it was submitted."""
    uncertain_since: datetime | None = None
    """Since when it is open whether the present attempt made a prediction."""
    not_before: datetime | None = None
    """When it may be submitted at the earliest; None = at once."""
    resubmissions: int = 0
    """How many attempts followed one that had been taken, or may have been; at most one."""
    job_id: str | None = None
    """The provider's id of the prediction that this generation uses."""
    provider_status: str | None = None
    provider_ended_at: datetime | None = None
    """When we learned that the prediction succeeded."""
    missing: int = 0
    """How often in a row the provider said that it does not know the prediction."""
    parked_from: Stage | None = None
    """The stage that it was parked in."""
    park_reason: str | None = None
    """Why, for operators."""
    progress_percent: int = 0
    output_url: str | None = None
    """Where the provider keeps the video."""
    output: Output | None = None
    erase_at: datetime | None = None
    """When its files are to be removed; None = never, or done."""
    erased_at: datetime | None = None
    failure: Failure | None = None
    rejected_available: int | None = None
    """The credits that were available when the reservation was refused for want of them."""
    refund_percent: int | None = None
    """The share of the price that the user's cancel gives back; None = not canceled."""
    charged_credits: int = 0
    retry_of: str | None = None
    """The generation that this one makes again."""
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deleted_at: datetime | None = None
    traceparent: str | None = None
    """The trace in which it was created, as it is handed on between processes."""

    @property
    def charge_credits(self) -> int:
        """What a commit spends: the price, or what the user's cancel does not give back."""
        if self.refund_percent is None:
            return self.price_credits
        # In the user's favor: what cannot be divided is given back.
        return self.price_credits * (100 - self.refund_percent) // 100

    @property
    def status(self) -> Status:
        """How far it is, in the product's words."""
        begun = self.submitted_at is not None or self.failure is not None
        return status_of(self.stage, begun=begun)


def status_of(stage: Stage, *, begun: bool = False) -> Status:
    """Returns the public word for a stage; PARKED keeps the word that it had before."""
    match stage:
        case Stage.RESERVING | Stage.READY | Stage.SUBMITTING:
            return Status.QUEUED
        case Stage.RUNNING | Stage.CANCELING | Stage.ARCHIVING | Stage.COMMITTING | Stage.REFUNDING:
            return Status.PROCESSING
        case Stage.PARKED:
            return Status.PROCESSING if begun else Status.QUEUED
        case Stage.COMPLETED:
            return Status.COMPLETED
        case Stage.FAILED | Stage.REJECTED:
            return Status.FAILED
        case Stage.CANCELED:
            return Status.CANCELED
        case unreachable:
            assert_never(unreachable)
