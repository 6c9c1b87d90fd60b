"""Decides what a cancel by the user does, and what it gives back.

Until the video exists a generation can be canceled. What is given back is fixed at that moment, by
how far the provider had come; if the provider finishes first, the user gets the video and pays.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from services.generation.state import Generation, Stage

__all__ = ["CancelPolicy", "Verdict", "judge_cancel", "percent_of_cancel", "refund_of_cancel"]


@dataclass(frozen=True, slots=True)
class CancelPolicy:
    """The share of the price, in percent, that a cancel gives back."""

    not_submitted: int = 100
    """While the provider does not have it."""
    starting: int = 100
    """While it waits at the provider."""
    running: int = 100
    """While the model runs."""


class Verdict(StrEnum):
    """What becomes of a cancel; the refusals have the contract's names."""

    ACCEPTED = "ACCEPTED"
    REPEATED = "REPEATED"
    """It was canceled before."""
    ALREADY_SUCCEEDED = "ALREADY_SUCCEEDED"
    GENERATION_ENDED = "GENERATION_ENDED"


def judge_cancel(generation: Generation) -> Verdict:
    """Returns what becomes of a cancel of `generation` as it is now."""
    if generation.refund_percent is not None:
        return Verdict.REPEATED
    match _stage_of(generation):
        case Stage.RESERVING | Stage.READY | Stage.SUBMITTING | Stage.RUNNING | Stage.CANCELING:
            return Verdict.ACCEPTED
        case Stage.ARCHIVING | Stage.COMMITTING | Stage.COMPLETED:
            return Verdict.ALREADY_SUCCEEDED
        case Stage.REFUNDING | Stage.REJECTED | Stage.FAILED | Stage.CANCELED | Stage.PARKED:
            return Verdict.GENERATION_ENDED
        case unreachable:
            assert_never(unreachable)


def percent_of_cancel(generation: Generation, policy: CancelPolicy) -> int:
    """Returns the percentage of the price that an accepted cancel gives back."""
    match _stage_of(generation):
        case Stage.RUNNING if generation.provider_status == "processing":
            return policy.running
        case Stage.RUNNING:
            return policy.starting
        case Stage.CANCELING:
            # It is being canceled for its deadline, which is not the user's doing.
            return 100
        case _:
            return policy.not_submitted


def refund_of_cancel(generation: Generation, policy: CancelPolicy) -> int | None:
    """Returns the credits that a cancel now would give back, or the one before gave back.

    None if it cannot be canceled.
    """
    match judge_cancel(generation):
        case Verdict.ACCEPTED:
            percent = percent_of_cancel(generation, policy)
            return generation.price_credits - generation.price_credits * (100 - percent) // 100
        case Verdict.REPEATED:
            return generation.price_credits - generation.charge_credits
        case Verdict.ALREADY_SUCCEEDED | Verdict.GENERATION_ENDED:
            return None
        case unreachable:
            assert_never(unreachable)


def _stage_of(generation: Generation) -> Stage:
    """Returns the stage, of a parked generation the one that it was parked in."""
    if generation.stage is Stage.PARKED and generation.parked_from is not None:
        return generation.parked_from
    return generation.stage
