"""Decides what comes of an event that the webhook service delivers.

The body's id decides, not the address: a prediction that is booked belongs to the generation that
it is booked for. An address that was proven to be ours can bring a prediction that we do not know
yet, as when the answer to its create was lost; only the attempt that waits for one adopts it.
"""

from dataclasses import dataclass
from enum import StrEnum

from services.generation.events import Event, PredictionSeen, Source, Submitted
from services.generation.prediction import Prediction
from services.generation.state import Generation, Stage

__all__ = ["Disposition", "Ruling", "is_echo", "rule"]


class Disposition(StrEnum):
    """What came of an event; the names are the contract's."""

    APPLIED = "APPLIED"
    DUPLICATE = "DUPLICATE"
    STALE = "STALE"
    ORPHAN = "ORPHAN"
    UNMATCHED = "UNMATCHED"
    UNREADABLE = "UNREADABLE"


@dataclass(frozen=True, slots=True)
class Ruling:
    """What to make of an event: an event of the saga, or where to file it."""

    event: Event | None
    disposition: Disposition
    """Where it is filed if `event` is None or changes nothing."""


def rule(
    prediction: Prediction | None,
    generation: Generation | None,
    attempt: int,
    *,
    is_booked: bool,
    attempt_seed: int | None,
) -> Ruling:
    """Returns what to make of what was said about `prediction`.

    `generation` is the one that the prediction is booked for, else the one that the proven address
    names, else None; `attempt` is the address's, and `attempt_seed` the seed that it was sent with.
    """
    if prediction is None:
        return Ruling(None, Disposition.UNREADABLE)
    if generation is None:
        return Ruling(None, Disposition.UNMATCHED)
    if is_booked:
        if generation.job_id == prediction.job_id:
            return Ruling(PredictionSeen(prediction, Source.WEBHOOK), Disposition.STALE)
        return Ruling(None, Disposition.STALE)
    is_parked = generation.stage is Stage.PARKED
    stage = generation.parked_from if is_parked else generation.stage
    waits = stage is Stage.SUBMITTING and generation.attempt == attempt
    if waits and is_echo(prediction, attempt_seed):
        return Ruling(Submitted(attempt, prediction, Source.WEBHOOK), Disposition.ORPHAN)
    return Ruling(None, Disposition.ORPHAN)


def is_echo(prediction: Prediction | None, attempt_seed: int | None) -> bool:
    """Tells whether a prediction may come from an attempt that was sent with that seed.

    The echo of the seed may be missing; one that differs is another prediction's.
    """
    return prediction is not None and prediction.seed in (None, attempt_seed)
