"""Decides whether a generation and its reservation tell the same story, and what to do if not."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import assert_never

from services.generation.state import Generation, Stage

__all__ = [
    "OVERDUE_AFTER",
    "Finding",
    "ReconcilePolicy",
    "Reconciliation",
    "Remedy",
    "Reservation",
    "judge",
    "may_be_a_generation",
]

OVERDUE_AFTER = timedelta(minutes=2)
"""How long after its deadline a generation may still be ending."""
SETTLING_MAX = timedelta(minutes=15)
"""How long credits may take to settle a price before somebody should know."""
SAVING_MAX = timedelta(minutes=30)
"""How long the saving of a video may take: half of the time for which the provider keeps it."""
_GENERATION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ReconcilePolicy:
    """How often to compare, and what."""

    interval_s: float
    """Between two passes, give or take a fifth."""
    age_s: float
    """Younger open reservations are left alone: their generations are under way."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What the credits service says about the money of a generation."""

    user_id: str
    reservation_id: str
    state: str
    """In the words of the contract."""
    committed_credits: int = 0
    reimbursed_credits: int = 0

    @property
    def is_open(self) -> bool:
        """Whether the credits are still set aside."""
        return self.state == "RESERVED"

    @property
    def spent_credits(self) -> int:
        """What the user has paid, less what was given back of it."""
        return self.committed_credits - self.reimbursed_credits


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
    CHARGED_WITHOUT_VIDEO = "CHARGED_WITHOUT_VIDEO"
    """The user has paid, and the generation failed or waits for an operator."""
    OVERDUE = "OVERDUE"
    """The generation should have ended."""
    PARKED = "PARKED"
    """The generation waits for an operator, with its price set aside."""
    PARKED_UNRESERVED = "PARKED_UNRESERVED"
    """The generation waits for an operator, and its price is not set aside: the reservation expired
    meanwhile, was refunded, or was never made. To finish it would give the video away."""
    NOT_CHARGED = "NOT_CHARGED"
    """There is a video that was given away, since its reservation had expired."""
    NOT_PAID = "NOT_PAID"
    """There is a video, and its reservation was not committed, or with another amount."""
    UNMATCHED = "UNMATCHED"
    """Credits are set aside under an id like ours, and there is no such generation: another
    product's work, or a generation that was lost, as by restoring an older backup."""
    UNREADABLE = "UNREADABLE"
    """The credits service answers, but cannot tell of this reservation."""

    @property
    def remedy(self) -> Remedy:
        """What to do about it."""
        match self:
            case Finding.NOT_REFUNDED:
                return Remedy.REFUND
            case Finding.NOT_COMMITTED:
                return Remedy.COMMIT
            case (
                Finding.CHARGED_WITHOUT_VIDEO
                | Finding.OVERDUE
                | Finding.PARKED
                | Finding.PARKED_UNRESERVED
                | Finding.NOT_CHARGED
                | Finding.NOT_PAID
                | Finding.UNMATCHED
                | Finding.UNREADABLE
            ):
                return Remedy.REPORT
            case unreachable:
                assert_never(unreachable)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What a whole pass left behind."""

    reconciled_at: datetime
    """When the pass began, by the database's clock."""
    ends_checked_until: datetime
    """Generations that ended before this were looked at; the rest wait for the next pass."""
    findings: Mapping[Finding, int]
    """How many faults of each kind stand; a kind without any is left out."""


def may_be_a_generation(reservation_id: str) -> bool:
    """Tells whether a reservation can be that of a generation, which is of the same id: a UUID.

    Other products may keep their credits in the same ledger.
    """
    return _GENERATION_ID.fullmatch(reservation_id) is not None


def judge(
    generation: Generation | None, reservation: Reservation | None, now: datetime
) -> Finding | None:
    """Returns what is wrong between a generation and its reservation; None is nothing.

    Either is None where there is none. What reads them must have read the generation first, or one
    that settles in between looks like a fault.
    """
    is_open = reservation is not None and reservation.is_open
    if generation is None:
        return Finding.UNMATCHED if is_open else None
    spent_credits = 0 if reservation is None else reservation.spent_credits
    match generation.stage:
        case Stage.COMPLETED:
            return _judge_completed(generation, reservation)
        case Stage.FAILED | Stage.REJECTED | Stage.CANCELED:
            if is_open:
                # A cancel may have kept a part of the price.
                kept = generation.charged_credits > 0
                return Finding.NOT_COMMITTED if kept else Finding.NOT_REFUNDED
            overcharged = spent_credits > generation.charged_credits
            return Finding.CHARGED_WITHOUT_VIDEO if overcharged else None
        case Stage.PARKED:
            if spent_credits:
                return Finding.CHARGED_WITHOUT_VIDEO
            return Finding.PARKED if is_open else Finding.PARKED_UNRESERVED
        case (
            Stage.RESERVING
            | Stage.READY
            | Stage.SUBMITTING
            | Stage.RUNNING
            | Stage.CANCELING
            | Stage.ARCHIVING
            | Stage.COMMITTING
            | Stage.REFUNDING
        ):
            return Finding.OVERDUE if now > _latest_end(generation) else None
        case unreachable:
            assert_never(unreachable)


def _judge_completed(generation: Generation, reservation: Reservation | None) -> Finding | None:
    if reservation is not None and reservation.is_open and generation.charged_credits:
        return Finding.NOT_COMMITTED
    committed_credits = 0 if reservation is None else reservation.committed_credits
    if committed_credits != generation.charged_credits:
        return Finding.NOT_PAID
    # What the row says is free stays free, also where the reservation is not swept yet.
    return Finding.NOT_CHARGED if generation.charged_credits == 0 else None


def _latest_end(generation: Generation) -> datetime:
    """Returns when a generation that is under way should have left its stage."""
    latest = generation.deadline_at + OVERDUE_AFTER
    match generation.stage:
        case Stage.RESERVING | Stage.COMMITTING | Stage.REFUNDING:
            return max(latest, generation.stage_since + SETTLING_MAX)
        case Stage.ARCHIVING:
            return max(latest, generation.stage_since + SAVING_MAX)
        case _:
            return latest
