"""The judge finds nothing in a good run, and each thing that can be wrong with one."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.cases import FAULTS, POINTS, pair
from tests.chaos.evidence import Evidence, Limits
from tests.chaos.good_run import (
    GOOD,
    JOB,
    MADE,
    PATH,
    G,
    at,
    attempt,
    booked,
    call,
    generation,
    moves,
)
from tests.chaos.judge import judge

OTHER = replace(MADE, job_id="job2", attempt=2, created_at=at(1.5), ended_at=at(2))
TWICE = replace(
    GOOD,
    attempts=[attempt(), attempt(2, 1.2)],
    made=[MADE, OTHER],
    predictions=[booked(), booked("job2", role="ORPHAN")],
    calls=[
        call(),
        call(1.4, job_id="job2"),
        call(1.6, path="/v1/predictions/job2/cancel", job_id="job2"),
    ],
)
"""One more was made while the first ran, and is booked and canceled."""


def of(**changes: Any) -> Mapping[str, Any]:
    return {G: generation(**changes)}


WRONG: Mapping[str, tuple[str, Evidence]] = {
    "two at once": ("J1", TWICE),
    "one that is booked nowhere": ("J1", replace(GOOD, predictions=[])),
    "one that nobody uses or cancels": (
        "J1", replace(TWICE, calls=TWICE.calls[:2]),
    ),
    "another end than the books have": ("J1", replace(GOOD, predictions=[booked(status="failed")])),
    "two adopted": ("J1", replace(TWICE, predictions=[booked(), booked("job2")])),
    "a video that is not paid": ("J2", replace(GOOD, reservations={G: ("REFUNDED", 0)})),
    "a video that is not there": ("J2", replace(GOOD, file_sizes={})),
    "a failure that is paid": ("J2", replace(GOOD, generations=of(stage="FAILED"))),
    "another sum than credits have": ("J2", replace(GOOD, generations=of(charged_credits=9))),
    "a cancel that keeps too much": (
        "J2", replace(GOOD, generations=of(stage="CANCELED", refund_percent=50)),
    ),
    "one that is still open": (
        "J3", replace(GOOD, generations=of(stage="RUNNING", finished_at=None), read_at=at(600)),
    ),
    "one that ended late": ("J3", replace(GOOD, generations=of(finished_at=at(600)))),
    "too many creates": (
        "J4", replace(GOOD, limits=Limits(creates_burst=1), attempts=[attempt(), attempt(2, 0.01)]),
    ),
    "too many under way": ("J4", replace(TWICE, limits=Limits(in_flight_max=0))),
    "a create in a pause": (
        "J4",
        replace(
            TWICE,
            attempts=[attempt(settled_at=at(0.3), http_status=429), attempt(2, 0.5)],
            calls=[call(status=429), *TWICE.calls[1:]],
        ),
    ),
    "one that runs in the end": ("J5", replace(GOOD, made=[replace(MADE, ended_at=None)])),
    "one that never comes due": ("J6", replace(GOOD, generations=of(stage="RUNNING"))),
    "one that ended and comes due": ("J6", replace(GOOD, generations=of(due_at=at(9)))),
    "a create after one that made something": ("J7", TWICE),
    "a create after one of unknown outcome": (
        "J7",
        replace(
            TWICE,
            made=[OTHER],
            calls=[call(status=None, job_id=None), *TWICE.calls[1:]],
        ),
    ),
    "a create that was sent too late": ("J7", replace(GOOD, calls=[call(4.5)])),
    "a create that nobody meant": ("J7", replace(GOOD, calls=[call(), call(0.2)])),
    "a token for another host": (
        "J8", replace(GOOD, calls=[call(), call(path="/xezq/a/output.mp4", listener="delivery")]),
    ),
    "a move that is none": ("J9", replace(GOOD, transitions=moves(*PATH[:1], *PATH[2:]))),
    "an end that was left": (
        "J9", replace(GOOD, transitions=moves(*PATH, "COMPLETED PredictionSeen ARCHIVING")),
    ),
    "a stage that no move led to": ("J9", replace(GOOD, transitions=moves(*PATH[:5]))),
    "more resubmissions than one": (
        "J9",
        replace(
            GOOD,
            transitions=moves(
                *PATH[:2], *("SUBMITTING SubmitAbsent READY", PATH[1]) * 2, *PATH[2:]
            ),
        ),
    ),
    "a ledger that does not agree": ("J10", replace(GOOD, ledger_violations=["I1: 5 is not 6"])),
}  # fmt: skip


def test_a_good_run_is_good() -> None:
    assert judge(GOOD) == []


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(name: str) -> None:
    rule, evidence = WRONG[name]

    findings = judge(evidence)

    assert rule in {finding.rule for finding in findings}, findings
    assert all(finding.proof for finding in findings)


def failed_first(evidence: Evidence) -> Evidence:
    """The provider's machines failed under the first prediction, so there was a second."""
    failed = replace(MADE, status="failed", ended_at=at(0.9))
    second = replace(OTHER, job_id="job2")
    return replace(
        evidence,
        generations=of(job_id="job2", resubmissions=1),
        made=[failed, second],
        predictions=[
            booked(role="SUPERSEDED", status="failed", ended_at=at(1)),
            booked("job2"),
        ],
        transitions=moves(*PATH[:3], "RUNNING PredictionSeen READY", *PATH[1:]),
        calls=evidence.calls[:2],
    )


def absent_first(evidence: Evidence) -> Evidence:
    """The first create made nothing, and that was certain before the second was sent."""
    return replace(
        evidence,
        generations=of(job_id="job2", resubmissions=1, finished_at=at(9)),
        attempts=[attempt(), attempt(2, 6)],
        made=[replace(OTHER, created_at=at(6.2), ended_at=at(7))],
        predictions=[booked("job2")],
        transitions=moves(*PATH[:2], "SUBMITTING SubmitAbsent READY", *PATH[1:]),
        calls=[call(status=None, job_id=None), call(6.1, job_id="job2")],
    )


def came_late(evidence: Evidence) -> Evidence:
    """What the first create made appeared after everybody had to believe that it made nothing."""
    absent = absent_first(evidence)
    return replace(
        absent,
        made=[replace(MADE, status="canceled", created_at=at(5.5), ended_at=at(8)), *absent.made],
        predictions=[booked(role="ORPHAN", status="canceled"), *absent.predictions],
        calls=[*absent.calls, call(7, path=f"/v1/predictions/{JOB}/cancel", job_id=JOB)],
    )


@pytest.mark.parametrize("story", [failed_first, absent_first, came_late])
def test_a_second_attempt_for_a_good_reason_is_good(
    story: Callable[[Evidence], Evidence],
) -> None:
    assert judge(story(TWICE)) == []


def test_each_round_pairs_every_fault_and_every_point_anew() -> None:
    for rounds in (1, 2, 3):
        cases = pair(rounds)
        pairs = {(case.fault.name, case.point.name) for case in cases}
        assert len(pairs) == len(cases)
        assert min(sum(case.fault is fault for case in cases) for fault in FAULTS) >= rounds
        assert min(sum(case.point is point for case in cases) for point in POINTS) >= rounds
    everything = {(case.fault.name, case.point.name) for case in pair(len(FAULTS))}
    assert len(everything) == len(FAULTS) * len(POINTS)
