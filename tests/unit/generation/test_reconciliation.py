"""Every story that a generation and its reservation can tell together."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from services.generation.reconciliation import (
    OVERDUE_AFTER,
    SAVING_MAX,
    SETTLING_MAX,
    Finding,
    Remedy,
    Reservation,
    judge,
    may_be_a_generation,
)
from services.generation.saga import begin
from services.generation.state import Generation, Kind, Request, Stage
from services.generation.timing import Timing

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
PRICE = 10
LATEST = NOON + timedelta(seconds=Timing().deadline_s) + OVERDUE_AFTER
A_MOMENT = timedelta(microseconds=1)


def generation_in(
    stage: Stage, charged_credits: int = 0, stage_since: datetime = NOON
) -> Generation:
    request = Request(Kind.TEXT_TO_VIDEO, "t2v-14B", "480p", "a red fox in the snow")
    begun = begin(str(uuid.uuid4()), "ann", request, PRICE, NOON, Timing())
    return replace(begun, stage=stage, charged_credits=charged_credits, stage_since=stage_since)


def reservation(state: str, committed_credits: int = 0, reimbursed_credits: int = 0) -> Reservation:
    return Reservation("ann", "r1", state, committed_credits, reimbursed_credits)


OPEN = reservation("RESERVED")
SPENT = reservation("COMMITTED", PRICE)
UNSPENT = (
    reservation("COMMITTED", 0),
    reservation("COMMITTED", PRICE, PRICE),
    reservation("REFUNDED"),
    reservation("EXPIRED"),
    reservation("REJECTED"),
    reservation("OF_A_LATER_CONTRACT"),
    None,
)
UNDER_WAY = (
    Stage.RESERVING,
    Stage.READY,
    Stage.SUBMITTING,
    Stage.RUNNING,
    Stage.CANCELING,
    Stage.ARCHIVING,
    Stage.COMMITTING,
    Stage.REFUNDING,
)

# Stage -> what is wrong while the price is set aside, when it is spent, and when it is neither.
ENDED_WITHOUT_VIDEO = (Finding.NOT_REFUNDED, Finding.CHARGED_WITHOUT_VIDEO, None)
FINDINGS: dict[Stage, tuple[Finding | None, Finding | None, Finding | None]] = {
    **dict.fromkeys(UNDER_WAY, (None, None, None)),
    Stage.PARKED: (Finding.PARKED, Finding.CHARGED_WITHOUT_VIDEO, Finding.PARKED_UNRESERVED),
    Stage.REJECTED: ENDED_WITHOUT_VIDEO,
    Stage.CANCELED: ENDED_WITHOUT_VIDEO,
    Stage.FAILED: ENDED_WITHOUT_VIDEO,
}


@pytest.mark.parametrize("stage", sorted(set(Stage) - {Stage.COMPLETED}))
def test_without_a_video_nothing_may_be_set_aside_for_long_nor_spent(stage: Stage) -> None:
    while_open, when_spent, otherwise = FINDINGS[stage]
    generation = generation_in(stage)

    assert judge(generation, OPEN, NOON) is while_open
    assert judge(generation, SPENT, NOON) is when_spent
    assert judge(generation, reservation("COMMITTED", PRICE, PRICE - 1), NOON) is when_spent
    assert {judge(generation, found, NOON) for found in UNSPENT} == {otherwise}


@pytest.mark.parametrize("stage", UNDER_WAY)
def test_what_is_under_way_is_overdue_two_minutes_after_its_deadline(stage: Stage) -> None:
    generation = generation_in(stage)

    for found in (OPEN, SPENT, *UNSPENT):
        assert judge(generation, found, LATEST) is None
        assert judge(generation, found, LATEST + A_MOMENT) is Finding.OVERDUE


@pytest.mark.parametrize(
    ("stage", "patience"),
    [
        (Stage.RESERVING, SETTLING_MAX),
        (Stage.COMMITTING, SETTLING_MAX),
        (Stage.REFUNDING, SETTLING_MAX),
        (Stage.ARCHIVING, SAVING_MAX),
        (Stage.CANCELING, timedelta(0)),
    ],
)
def test_saving_and_settling_may_take_longer_than_the_deadline(
    stage: Stage, patience: timedelta
) -> None:
    generation = generation_in(stage, stage_since=LATEST)

    assert judge(generation, OPEN, LATEST + patience) is None
    assert judge(generation, OPEN, LATEST + patience + A_MOMENT) is Finding.OVERDUE


def test_an_open_reservation_without_a_generation_matches_none() -> None:
    assert judge(None, OPEN, NOON) is Finding.UNMATCHED
    assert {judge(None, found, NOON) for found in (SPENT, *UNSPENT)} == {None}


@pytest.mark.parametrize(
    ("charged", "found", "finding"),
    [
        (PRICE, SPENT, None),
        # What was given back of a payment, an operator gave back.
        (PRICE, reservation("COMMITTED", PRICE, PRICE), None),
        (PRICE, reservation("COMMITTED", PRICE - 1), Finding.NOT_PAID),
        (PRICE, reservation("COMMITTED", PRICE + 1), Finding.NOT_PAID),
        (PRICE, reservation("COMMITTED", 0), Finding.NOT_PAID),
        (PRICE, OPEN, Finding.NOT_COMMITTED),
        (PRICE, reservation("REFUNDED"), Finding.NOT_PAID),
        (PRICE, reservation("EXPIRED"), Finding.NOT_PAID),
        (PRICE, reservation("REJECTED"), Finding.NOT_PAID),
        (PRICE, reservation("OF_A_LATER_CONTRACT"), Finding.NOT_PAID),
        (PRICE, None, Finding.NOT_PAID),
        (0, OPEN, Finding.NOT_CHARGED),
        (0, reservation("EXPIRED"), Finding.NOT_CHARGED),
        (0, SPENT, Finding.NOT_PAID),
    ],
)
def test_a_completed_generation_is_paid_by_a_commit_of_what_it_charged(
    charged: int, found: Reservation | None, finding: Finding | None
) -> None:
    assert judge(generation_in(Stage.COMPLETED, charged), found, NOON) is finding


@pytest.mark.parametrize("finding", Finding)
def test_credits_move_only_where_the_generation_has_said_for_good_what_is_owed(
    finding: Finding,
) -> None:
    moving = {Finding.NOT_REFUNDED: Remedy.REFUND, Finding.NOT_COMMITTED: Remedy.COMMIT}

    assert finding.remedy is moving.get(finding, Remedy.REPORT)


def test_only_a_reservation_under_a_uuid_can_be_that_of_a_generation() -> None:
    ours = "01a1fe35-9415-72d0-8d8f-cb387646890a"

    assert may_be_a_generation(ours)
    for other in ("", "order-17", ours.upper(), ours.replace("-", ""), ours + "0", ours + "\n"):
        assert not may_be_a_generation(other)


def test_a_cancel_that_keeps_a_part_of_the_price_is_no_charge_without_a_video() -> None:
    canceled = replace(generation_in(Stage.CANCELED), refund_percent=50, charged_credits=PRICE // 2)

    assert judge(canceled, OPEN, NOON) is Finding.NOT_COMMITTED
    assert judge(canceled, reservation("COMMITTED", PRICE // 2), NOON) is None
    assert judge(canceled, SPENT, NOON) is Finding.CHARGED_WITHOUT_VIDEO
