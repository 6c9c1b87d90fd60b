"""Decides whether one more generation is taken on; pure."""

from dataclasses import dataclass

from services.generation.estimates import Line

__all__ = ["Admission", "Admitted", "BacklogFull", "TooManyUnfinished", "judge"]

RETRY_AFTER_S_MIN = 1.0
RETRY_AFTER_S_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Admitted:
    """It is taken on."""


@dataclass(frozen=True, slots=True)
class BacklogFull:
    """What waits could not be worked off in time."""

    retry_after_s: float


@dataclass(frozen=True, slots=True)
class TooManyUnfinished:
    """The user has as many unfinished ones as allowed."""

    limit: int


Admission = Admitted | BacklogFull | TooManyUnfinished


def judge(
    line: Line, wanted: tuple[str, str], unfinished: int, unfinished_max: int, deadline_s: float
) -> Admission:
    """Returns whether a user with so many unfinished generations gets one more of `wanted`.

    That is a model and a resolution. What is taken on must be likely to be there by its deadline:
    the backlog is worked off before it, less the time that 19 of 20 of its like take.
    """
    if unfinished >= unfinished_max:
        return TooManyUnfinished(unfinished_max)
    times = line.times.get(wanted)
    spare_s = deadline_s - (times.from_submit.p95_s if times is not None else 0.0)
    excess_s = line.ready / line.per_s() - max(spare_s, 0.0)
    if line.ready and excess_s > 0:
        return BacklogFull(min(max(excess_s, RETRY_AFTER_S_MIN), RETRY_AFTER_S_MAX))
    return Admitted()
