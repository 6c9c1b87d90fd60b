"""Every story that a generation and its reservation can tell together."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.generation.reconciliation import (
    OVERDUE_AFTER,
    Finding,
    Remedy,
    Reservation,
    judge_completed,
    judge_open,
)
from services.generation.saga import begin
from services.generation.state import Generation, Kind, Request, Stage
from services.generation.timing import Timing

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
PRICE = 10
LATEST = NOON + timedelta(seconds=Timing().deadline_s) + OVERDUE_AFTER


def generation_in(stage: Stage, charged_credits: int = 0) -> Generation:
    request = Request(Kind.TEXT_TO_VIDEO, "t2v-14B", "480p", "a red fox in the snow")
    begun = begin(str(uuid.uuid4()), "ann", request, PRICE, NOON, Timing())
    return replace(begun, stage=stage, charged_credits=charged_credits)


def reservation(state: str, committed_credits: int = 0) -> Reservation:
    return Reservation("ann", "r1", state, committed_credits)


# Stage -> what is wrong with an open reservation in time, and after the deadline and two minutes.
OPEN: dict[Stage, tuple[Finding | None, Finding | None]] = {
    **dict.fromkeys(
        (
            Stage.RESERVING,
            Stage.READY,
            Stage.SUBMITTING,
            Stage.RUNNING,
            Stage.CANCELING,
            Stage.ARCHIVING,
            Stage.COMMITTING,
            Stage.REFUNDING,
        ),
        (None, Finding.OVERDUE),
    ),
    Stage.PARKED: (Finding.PARKED, Finding.PARKED),
    Stage.REJECTED: (Finding.NOT_REFUNDED, Finding.NOT_REFUNDED),
    Stage.FAILED: (Finding.NOT_REFUNDED, Finding.NOT_REFUNDED),
    Stage.COMPLETED: (Finding.NOT_CHARGED, Finding.NOT_CHARGED),
}


@pytest.mark.parametrize("stage", Stage)
def test_an_open_reservation_is_a_fault_by_its_generation_s_stage(stage: Stage) -> None:
    in_time, overdue = OPEN[stage]
    generation = generation_in(stage)

    assert judge_open(generation, LATEST) is in_time
    assert judge_open(generation, LATEST + timedelta(microseconds=1)) is overdue


def test_a_charged_video_with_an_open_reservation_is_not_committed() -> None:
    assert judge_open(generation_in(Stage.COMPLETED, PRICE), LATEST) is Finding.NOT_COMMITTED


def test_a_reservation_without_a_generation_is_unknown() -> None:
    assert judge_open(None, NOON) is Finding.UNKNOWN


@pytest.mark.parametrize(
    ("charged", "found", "finding"),
    [
        (PRICE, reservation("COMMITTED", PRICE), None),
        (PRICE, reservation("COMMITTED", PRICE - 1), Finding.NOT_PAID),
        (PRICE, reservation("COMMITTED", PRICE + 1), Finding.NOT_PAID),
        (PRICE, reservation("COMMITTED", 0), Finding.NOT_PAID),
        (PRICE, reservation("RESERVED"), Finding.NOT_PAID),
        (PRICE, reservation("REFUNDED"), Finding.NOT_PAID),
        (PRICE, reservation("EXPIRED"), Finding.NOT_PAID),
        (PRICE, reservation("REJECTED"), Finding.NOT_PAID),
        (PRICE, reservation("UNKNOWN", PRICE), Finding.NOT_PAID),
        (PRICE, None, Finding.NOT_PAID),
        (0, reservation("EXPIRED"), Finding.NOT_CHARGED),
        (0, reservation("COMMITTED", PRICE), Finding.NOT_CHARGED),
    ],
)
def test_a_completed_generation_is_paid_by_a_commit_of_what_it_charged(
    charged: int, found: Reservation | None, finding: Finding | None
) -> None:
    assert judge_completed(generation_in(Stage.COMPLETED, charged), found) is finding


@pytest.mark.parametrize("finding", Finding)
def test_credits_move_only_where_the_generation_has_said_for_good_what_is_owed(
    finding: Finding,
) -> None:
    moving = {Finding.NOT_REFUNDED: Remedy.REFUND, Finding.NOT_COMMITTED: Remedy.COMMIT}

    assert finding.remedy is moving.get(finding, Remedy.REPORT)
