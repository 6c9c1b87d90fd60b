"""The operators' screen says what is so, and what needs somebody."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from services.cli.statistics import facts, print_stats
from services.client.generations import (
    EndCount,
    Finding,
    GenerationErrorCode,
    Stage,
    StageCount,
    Stats,
    Status,
)
from tests.unit.cli.samples import NOON

QUIET = Stats(
    stages=(),
    ends=(),
    success_ratio=None,
    completion_p50_s=None,
    completion_p90_s=None,
    ends_by_webhook=0,
    ends_by_poll=0,
    unsettled_credits=0,
    live_orphans=0,
    orphans=0,
    creates_paused_until=None,
    creates_paused_why="",
    findings=(),
    compared_at=None,
)


def said(stats: Stats) -> dict[str, str]:
    return {fact.name: fact.text for fact in facts(stats, NOON)}


def alarms(stats: Stats) -> list[str]:
    return [fact.name for fact in facts(stats, NOON) if fact.needs_somebody]


def test_a_new_service_has_nothing_to_tell_and_alarms_nobody() -> None:
    assert said(QUIET) == {
        "submissions": "open",
        "parked": "nothing",
        "credits": "0 reserved for what is unfinished",
        "orphans": "0 live, 0 in 24 h",
        "ledger": "not compared yet; unless set otherwise, that is done every 5 min",
        "success": "nothing ended in 24 h",
        "duration": "no video in 24 h",
        "ends told": "0 by webhooks, 0 by polls",
    }
    assert alarms(QUIET) == []


def test_a_busy_day_is_told_in_ratios_and_times() -> None:
    busy = replace(
        QUIET,
        success_ratio=0.9756,
        completion_p50_s=41.2,
        completion_p90_s=180.0,
        ends_by_webhook=75,
        ends_by_poll=25,
        unsettled_credits=240,
        orphans=1,
        findings=(Finding("CHARGED_WITHOUT_VIDEO", 0),),
        compared_at=NOON - timedelta(minutes=2),
    )

    assert said(busy) | {
        "credits": "240 reserved for what is unfinished",
        "orphans": "0 live, 1 in 24 h",
        "ledger": "agrees, as of 2 min ago",
        "success": "97.6% in 24 h",
        "duration": "half within 41 s, nine of ten within 3 min",
        "ends told": "75 by webhooks, 25 by polls (75% by webhook)",
    } == said(busy)
    assert alarms(busy) == []


@pytest.mark.parametrize(
    ("changes", "alarm", "text"),
    [
        (
            {
                "creates_paused_until": NOON + timedelta(seconds=40),
                "creates_paused_why": "the account's credit is low",
            },
            "submissions",
            "paused for 40 s: the account's credit is low",
        ),
        (
            {"stages": (StageCount(Stage.PARKED, 2, NOON),)},
            "parked",
            "2; see `reelworks generations parked`",
        ),
        ({"live_orphans": 1, "orphans": 3}, "orphans", "1 live, 3 in 24 h"),
        (
            {"findings": (Finding("CHARGED_WITHOUT_VIDEO", 1),), "compared_at": NOON},
            "ledger",
            "differs, as of 0 s ago: CHARGED_WITHOUT_VIDEO 1",
        ),
    ],
)
def test_what_needs_an_operator_stands_out(changes: dict[str, Any], alarm: str, text: str) -> None:
    stats = replace(QUIET, **changes)

    assert alarms(stats) == [alarm]
    assert said(stats)[alarm] == text


def test_a_pause_that_is_over_is_only_told() -> None:
    stats = replace(QUIET, creates_paused_until=NOON, creates_paused_why="rate limit")

    assert said(stats)["submissions"] == "open; paused last because: rate limit"
    assert alarms(stats) == []


def test_stages_come_in_their_order_with_ages_and_ends_with_their_reasons(capsys: Any) -> None:
    stats = replace(
        QUIET,
        stages=(
            StageCount(Stage.RUNNING, 10, NOON - timedelta(minutes=3)),
            StageCount(Stage.READY, 4, NOON - timedelta(seconds=12)),
        ),
        ends=(
            EndCount(Status.COMPLETED, None, 80),
            EndCount(Status.FAILED, GenerationErrorCode.MODEL_FAILED, 2),
        ),
    )

    print_stats(stats, NOON)

    rows = [line.split() for line in capsys.readouterr().out.splitlines()[9:]]
    assert rows == [
        ["STAGE", "NOW", "OLDEST"],
        ["ready", "4", "12", "s"],
        ["running", "10", "3", "min"],
        [],
        ["ENDED", "24H", "WHY"],
        ["completed", "80"],
        ["failed", "2", "model_failed"],
    ]
