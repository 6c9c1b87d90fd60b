"""Decides what comes of an event that the webhook service delivers.

The body's id decides, not the address: a prediction that is booked belongs to the generation that
it is booked for. An address that was proven to be ours can bring a prediction that we do not know
yet, as when the answer to its create was lost; only the attempt that waits for one adopts it.
"""

from dataclasses import dataclass
from enum import StrEnum

from services.generation.events import Event, PredictionSeen, Submitted
from services.generation.prediction import Prediction
from services.generation.state import Generation, Stage

__all__ = ["Disposition", "Ruling", "rule"]


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
            return Ruling(PredictionSeen(prediction), Disposition.STALE)
        return Ruling(None, Disposition.STALE)
    waits = generation.stage is Stage.SUBMITTING and generation.attempt == attempt
    # The echo of the seed may be missing; one that differs is another prediction's.
    same_seed = prediction.seed is None or prediction.seed == attempt_seed
    if waits and same_seed:
        return Ruling(Submitted(attempt, prediction), Disposition.ORPHAN)
    return Ruling(None, Disposition.ORPHAN)
