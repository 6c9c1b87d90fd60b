"""Decides whether a generation and its reservation tell the same story, and what to do if not."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from services.generation.state import Generation, Stage, Status

__all__ = [
    "OVERDUE_AFTER",
    "Finding",
    "ReconcilePolicy",
    "Remedy",
    "Reservation",
    "judge_completed",
    "judge_open",
]

OVERDUE_AFTER = timedelta(minutes=2)
"""How long after its deadline a generation may still be settling."""


@dataclass(frozen=True, slots=True)
class ReconcilePolicy:
    """How often to compare, and what."""

    interval_s: float
    """Between two passes, give or take a fifth."""
    age_s: float
    """Younger reservations are left alone: their generations are under way."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What the credits service says about the money of a generation."""

    user_id: str
    reservation_id: str
    state: str
    """In the words of the contract."""
    committed_credits: int = 0

    @property
    def is_open(self) -> bool:
        """Whether the credits are still set aside."""
        return self.state == "RESERVED"


class Remedy(StrEnum):
    """What can be done about a fault."""

    REFUND = "REFUND"
    COMMIT = "COMMIT"
    REPORT = "REPORT"
    """Nothing safe: a person has to look."""


class Finding(StrEnum):
    """A fault that was found."""

    NOT_REFUNDED = "NOT_REFUNDED"
    """There is no video and never will be, yet its price is still set aside."""
    NOT_COMMITTED = "NOT_COMMITTED"
    """There is a video that the generation says is paid, yet its price is only set aside."""
    OVERDUE = "OVERDUE"
    """The generation should have ended."""
    PARKED = "PARKED"
    """The generation waits for an operator."""
    UNKNOWN = "UNKNOWN"
    """There is no such generation."""
    NOT_CHARGED = "NOT_CHARGED"
    """There is a video that was given away, since its reservation had expired."""
    NOT_PAID = "NOT_PAID"
    """There is a video, and its reservation was not committed, or with another amount."""

    @property
    def remedy(self) -> Remedy:
        """What to do about it."""
        match self:
            case Finding.NOT_REFUNDED:
                return Remedy.REFUND
            case Finding.NOT_COMMITTED:
                return Remedy.COMMIT
            case (
                Finding.OVERDUE
                | Finding.PARKED
                | Finding.UNKNOWN
                | Finding.NOT_CHARGED
                | Finding.NOT_PAID
            ):
                return Remedy.REPORT
            case unreachable:
                assert_never(unreachable)


def judge_open(generation: Generation | None, now: datetime) -> Finding | None:
    """Returns what is wrong with a generation whose reservation is old and open; None is nothing.

    `generation` is None where nothing is known of it.
    """
    if generation is None:
        return Finding.UNKNOWN
    if generation.stage is Stage.PARKED:
        return Finding.PARKED
    match generation.status:
        case Status.FAILED | Status.CANCELED:
            return Finding.NOT_REFUNDED
        case Status.COMPLETED:
            # What the row says is free stays free, also where the reservation is not swept yet.
            return Finding.NOT_COMMITTED if generation.charged_credits else Finding.NOT_CHARGED
        case Status.QUEUED | Status.PROCESSING:
            return Finding.OVERDUE if now > generation.deadline_at + OVERDUE_AFTER else None
        case unreachable:
            assert_never(unreachable)


def judge_completed(generation: Generation, reservation: Reservation | None) -> Finding | None:
    """Returns what is wrong with the payment of a completed generation; None is nothing.

    `reservation` is None where there is none.
    """
    if generation.charged_credits == 0:
        return Finding.NOT_CHARGED
    paid = 0
    if reservation is not None and reservation.state == "COMMITTED":
        paid = reservation.committed_credits
    return None if paid == generation.charged_credits else Finding.NOT_PAID
