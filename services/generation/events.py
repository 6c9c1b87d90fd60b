"""What can happen to a generation.

Facts are believed whoever reports them, and name the attempt or the prediction that they are about.
Plans are only intentions, and count only under the fence that they were made under.
"""

from dataclasses import dataclass
from enum import StrEnum

from services.generation.cancellation import CancelPolicy
from services.generation.prediction import Prediction
from services.generation.state import FailureCode, Output, Stage

__all__ = [
    "CancelRequested",
    "CommitExpired",
    "Committed",
    "CreditsContradicted",
    "Deleted",
    "EffectFailed",
    "Event",
    "OutputLost",
    "OutputRenewed",
    "OutputStored",
    "Poisoned",
    "PredictionMissing",
    "PredictionSeen",
    "Refunded",
    "ReserveRefused",
    "Reserved",
    "Resumed",
    "Source",
    "SubmitAbsent",
    "SubmitClaimed",
    "SubmitDeferred",
    "SubmitRefused",
    "SubmitUnknown",
    "Submitted",
    "Woken",
    "is_plan",
]


class Source(StrEnum):
    """Who told of a prediction."""

    CREATE = "CREATE"
    """The answer to its create."""
    WEBHOOK = "WEBHOOK"
    POLL = "POLL"
    SEARCH = "SEARCH"
    """The provider's list, looked through for it."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """Credits has a reservation; `is_open` is False if it was resolved already."""

    is_open: bool = True


@dataclass(frozen=True, slots=True)
class ReserveRefused:
    """Credits refused to reserve, for good."""

    code: FailureCode
    """INSUFFICIENT_CREDITS or ACCOUNT_NOT_FOUND."""
    available: int | None = None


@dataclass(frozen=True, slots=True)
class SubmitClaimed:
    """A worker has a place at the provider for it and is about to submit."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """The prediction of an attempt is known."""

    attempt: int
    prediction: Prediction
    source: Source = Source.CREATE


@dataclass(frozen=True, slots=True)
class SubmitRefused:
    """The provider will never take this input; nothing was created."""

    attempt: int
    message: str


@dataclass(frozen=True, slots=True)
class SubmitDeferred:
    """Nothing was created, for a reason that will pass."""

    attempt: int
    wait_s: float = 0.0
    """How long it shall let others go first."""


@dataclass(frozen=True, slots=True)
class SubmitUnknown:
    """Whether a prediction was created is open."""

    attempt: int


@dataclass(frozen=True, slots=True)
class SubmitAbsent:
    """The provider does not have the prediction of an attempt, and will not get it. A plan."""

    attempt: int


@dataclass(frozen=True, slots=True)
class PredictionSeen:
    """The provider said this about a prediction."""

    prediction: Prediction
    source: Source = Source.POLL
    poll_after_s: float = 0.0
    """When to look again, if that is later than the timing says."""


@dataclass(frozen=True, slots=True)
class PredictionMissing:
    """The provider does not know the prediction."""

    job_id: str


@dataclass(frozen=True, slots=True)
class OutputStored:
    """The video of a prediction lies in our storage."""

    job_id: str
    output: Output


@dataclass(frozen=True, slots=True)
class OutputRenewed:
    """The video of a prediction is to be had at another address."""

    job_id: str
    output_url: str


@dataclass(frozen=True, slots=True)
class OutputLost:
    """The video of a prediction cannot be had any more, or is none."""

    job_id: str
    message: str


@dataclass(frozen=True, slots=True)
class Committed:
    """The price is spent."""


@dataclass(frozen=True, slots=True)
class CommitExpired:
    """The reservation had expired, so nothing could be charged."""


@dataclass(frozen=True, slots=True)
class Refunded:
    """The price is given back."""


@dataclass(frozen=True, slots=True)
class CreditsContradicted:
    """Credits answered what cannot be, as that the price to commit was refunded."""

    reason: str


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """The user wants no video any more."""

    policy: CancelPolicy


@dataclass(frozen=True, slots=True)
class Deleted:
    """The user wants it out of the history."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """An operator lets a parked generation go on."""

    stage: Stage | None = None
    """Where; None = where it was parked."""


@dataclass(frozen=True, slots=True)
class EffectFailed:
    """The effect of a stage did not succeed and is to be tried again. A plan."""

    stage: Stage
    is_outage: bool
    """Whether something could not be reached, as opposed to a defect."""


@dataclass(frozen=True, slots=True)
class Poisoned:
    """It was claimed again and again, and nobody lived to tell how its effect ended. A plan."""


@dataclass(frozen=True, slots=True)
class Woken:
    """The time of a stage without an effect has come. A plan."""


Event = (
    Reserved
    | ReserveRefused
    | SubmitClaimed
    | Submitted
    | SubmitRefused
    | SubmitDeferred
    | SubmitUnknown
    | SubmitAbsent
    | PredictionSeen
    | PredictionMissing
    | OutputStored
    | OutputRenewed
    | OutputLost
    | Committed
    | CommitExpired
    | Refunded
    | CreditsContradicted
    | CancelRequested
    | Deleted
    | Resumed
    | EffectFailed
    | Poisoned
    | Woken
)


def is_plan(event: Event) -> bool:
    """Tells whether `event` counts only under the fence that it was made under."""
    return isinstance(event, SubmitClaimed | SubmitAbsent | EffectFailed | Poisoned | Woken)
