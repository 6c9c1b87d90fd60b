"""What the store is told to write, and what it answers."""

from dataclasses import dataclass
from datetime import datetime

from services.generation.deliveries import Disposition
from services.generation.events import Event, Submitted
from services.generation.prediction import Prediction
from services.generation.state import Generation, Request

__all__ = [
    "Answer",
    "AttemptRecord",
    "Begin",
    "Begun",
    "Command",
    "Deliver",
    "Delivered",
    "Happen",
    "prediction_in",
]


@dataclass(frozen=True, slots=True)
class Begin:
    """Creates a generation, unless its id is taken."""

    generation_id: str
    user_id: str
    request: Request
    price_credits: int
    retry_of: str | None = None
    traceparent: str | None = None
    """The trace in which it is created."""


@dataclass(frozen=True, slots=True)
class Begun:
    """The generation of an id, and whether it was created just now."""

    generation: Generation
    created: bool


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """What became of a create, for operators."""

    attempt: int
    state: str
    """CREATED, REFUSED, NOT_SENT, UNKNOWN or ABSENT."""
    http_status: int | None = None
    answer: bytes | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Happen:
    """Lets a generation take its step after `event`."""

    generation_id: str
    event: Event
    fence: int
    """The row's fence when the event's cause began; a plan counts only while it is the same."""
    record: AttemptRecord | None = None


@dataclass(frozen=True, slots=True)
class Deliver:
    """Records an event of the provider and lets its generation take its step."""

    webhook_id: str
    body: bytes
    generation_id: str
    """As proven by the address, or ''."""
    attempt: int
    received_at: datetime
    prediction: Prediction | None
    """What the body says; None if it is no prediction."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What came of an event, and the generation if it changed."""

    disposition: Disposition
    generation: Generation | None = None


Command = Begin | Happen | Deliver
Answer = Begun | Generation | Delivered | None


def prediction_in(command: Command) -> Prediction | None:
    """Returns the prediction that a command may bring, None if it brings none."""
    match command:
        case Deliver(prediction=prediction):
            return prediction
        case Happen(event=Submitted(prediction=prediction)):
            return prediction
        case _:
            return None
