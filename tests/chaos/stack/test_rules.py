"""The judge of the whole stack finds nothing in a good run, and each thing that can be wrong."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.good_run import JOB, KEY, MADE, G, at
from tests.chaos.stack.exhibits import Exhibits
from tests.chaos.stack.good_stack import (
    BOOKED,
    ENDED_BADLY,
    GOOD,
    LOST,
    REFUSED,
    RETURNED,
    SENT,
    STORED,
    USER,
    WELL,
    against,
    answer,
    balance,
    noting,
    reservation,
    row,
    told,
    transaction,
    with_evidence,
    with_row,
)
from tests.chaos.stack.rules import judge_all
from tests.chaos.stack.videos import video_of


@pytest.mark.parametrize("name", WELL)
def test_a_good_run_is_good(name: str) -> None:
    assert judge_all(WELL[name]) == []


WRONG: Mapping[str, tuple[str, Exhibits]] = {
    "a video that is not committed": ("S1", replace(GOOD, reservations=reservation("REFUNDED"))),
    "a video at another price": ("S1", replace(GOOD, reservations=reservation(committed=9))),
    "a video that is not stored": ("S1", with_evidence(file_sizes={})),
    "a video of somebody else": ("S1", replace(GOOD, titles={KEY: "job9"})),
    "a video that does not play": ("S1", replace(GOOD, titles={KEY: ""})),
    "a video that was changed": ("S1", replace(GOOD, digests={KEY: "5b"})),
    "a video that was erased and is there": (
        "S1", with_row(deleted_at=at(5), erased_at=at(6)),
    ),
    "a deleted one that nobody erases": ("S1", with_row(deleted_at=at(5))),
    "a failure that is paid": (
        "S2", replace(ENDED_BADLY, reservations=reservation("COMMITTED")),
    ),
    "a failure that is neither paid nor refunded": (
        "S2", replace(ENDED_BADLY, reservations=reservation("RESERVED")),
    ),
    "one that is both paid and refunded": (
        "S2", replace(GOOD, transactions=[*GOOD.transactions, RETURNED]),
    ),
    "one that is refunded twice": (
        "S2", replace(ENDED_BADLY, transactions=[*ENDED_BADLY.transactions, RETURNED]),
    ),
    "credits that are set aside for nothing": (
        "S2", replace(REFUSED, reservations=reservation("RESERVED")),
    ),
    "one that is paid at the provider and used by nobody": (
        "S3", with_evidence(made=[MADE, replace(MADE, job_id="job2")]),
    ),
    "two that are paid at the provider": (
        "S3",
        with_evidence(
            made=[MADE, replace(MADE, job_id="job2")],
            predictions=[
                BOOKED, BOOKED | {"job_id": "job2"},
            ],
        ),
    ),
    "one that was made for nobody": ("S3", with_evidence(REFUSED, made=[MADE])),
    "a balance that is not its sum": (
        "S4", replace(GOOD, accounts={USER: {"available": 91, "reserved": 0, "version": 3}}),
    ),
    "a balance that misses a transaction": (
        "S4", replace(GOOD, transactions=GOOD.transactions[:2]),
    ),
    "a charge that the balance does not show": ("S4", with_row(charged_credits=9)),
    "credits that nobody gave": (
        "S4",
        replace(
            ENDED_BADLY,
            accounts={USER: {"available": 110, "reserved": 0, "version": 4}},
            transactions=[*ENDED_BADLY.transactions, transaction("BONUS", 10, 0, None)],
        ),
    ),
    "one that was created and is not there": (
        "S5", replace(REFUSED, told=[told(), balance(100)]),
    ),
    "one that is somebody else's": ("S5", replace(GOOD, told=[told(user_id="bob")])),
    "an end that was not the end": (
        "S5", replace(ENDED_BADLY, told=[told(), balance(100)]),
    ),
    "another charge than was told": (
        "S5", replace(GOOD, told=[told(answer=answer(charged_credits=0))]),
    ),
    "a cancel that was forgotten": ("S5", replace(GOOD, told=[told("cancel")])),
    "a version that is not there yet": (
        "S5", replace(GOOD, told=[told(answer=answer(version=8))]),
    ),
    "one that was told to be deleted": (
        "S5", replace(GOOD, told=[told(), told("delete", answer={"deleted_ids": [G]})]),
    ),
    "another balance than was told": ("S5", replace(GOOD, told=[told(), balance(100)])),
    "a refused one that is there": (
        "S6", replace(GOOD, told=[told(outcome="refused"), balance()]),
    ),
    "a stranger who is answered": (
        "S6", replace(GOOD, told=[told(), told("get", as_stranger=True)]),
    ),
    "a stranger who deletes": (
        "S6",
        replace(
            GOOD,
            told=[told(), told("delete", as_stranger=True, answer={"deleted_ids": [G]})],
        ),
    ),
    "a repetition with another answer": (
        "S7", replace(GOOD, told=[told(), told(answer=answer(prompt="a cat"))]),
    ),
    "a contradiction that is answered": (
        "S7", replace(GOOD, told=[told(), told(changes={"prompt": "a cat"})]),
    ),
    "a version that falls": (
        "S7", replace(GOOD, told=[told(), told(answer=answer(version=6))]),
    ),
    "one that nobody asked for": ("S8", replace(GOOD, told=[])),
    "an acknowledged webhook that is not stored": (
        "S9", replace(GOOD, webhooks=[SENT, SENT | {"webhook_id": "msg_2"}]),
    ),
    "a webhook that waits": ("S9", replace(GOOD, inbox=[STORED | {"state": "PENDING"}])),
    "a webhook that is dead for no reason": (
        "S9",
        replace(GOOD, inbox=[STORED | {"state": "DEAD", "disposition": "", "last_error": "?"}]),
    ),
    "a delivered webhook that did not arrive": ("S9", replace(GOOD, events=[])),
    "a process that ended by itself": (
        "S10",
        replace(GOOD, noted=noting({"kind": "crashed", "place": "a", "code": 1, "log": ""})),
    ),
    "a process that was told to leave and fell": (
        "S10", replace(GOOD, noted=noting({"kind": "left", "place": "a", "code": 1})),
    ),
    "a defect that somebody was told of": (
        "S10",
        replace(GOOD, told=[told(), told(outcome="refused", reason="INTERNAL_FAILURE")]),
    ),
    "a run without an end": ("S11", replace(GOOD, noted=[])),
    "a run that was not done in time": (
        "S11", replace(GOOD, noted=noting({"kind": "unsettled", "left": ["g1 is RUNNING"]})),
    ),
    "one that is parked": ("S11", with_row(stage="PARKED", park_reason="again and again")),
    "one that is past its deadline": (
        "S11",
        with_evidence(with_row(stage="RUNNING", finished_at=None, due_at=at(9)), read_at=at(600)),
    ),
    "what the provider has against us": (
        "S12", replace(GOOD, provider_violations=[against(6)]),
    ),
    "what the provider charged twice": (
        "S12", replace(LOST, provider_violations=[against(1, JOB, "job2")]),
    ),
    "a prediction that was not used and known, and not canceled": (
        "J1",
        with_evidence(
            LOST, predictions=[BOOKED | {"role": "ORPHAN", "first_seen_at": at(1)}]
        ),
    ),
    "what the judge of generation finds": (
        "J10", with_evidence(ledger_violations=["I1: 5 is not 6"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(name: str) -> None:
    rule, exhibits = WRONG[name]

    findings = judge_all(exhibits)

    assert rule in {finding.rule for finding in findings}, findings
    assert all(finding.proof for finding in findings)


def test_each_rule_is_broken_by_some_test() -> None:
    assert {rule for rule, _ in WRONG.values()} == {f"S{n}" for n in range(1, 13)} | {"J1", "J10"}


def written(folder: Path, title: str) -> Path:
    """A folder as a run leaves it, of a generation that COMPLETED, with a video of that title."""
    (folder / "tables").mkdir()
    video = video_of(folder / "media" / KEY, title)
    plain = {
        "read_at": at(10).isoformat(),
        "limits": asdict(GOOD.evidence.limits),
        "ledger_violations": [],
    }
    (folder / "run.json").write_text(json.dumps(plain))
    verdict = {"violations": [], "missing_predictions": 0, "missing_requests": 0}
    provider = {"predictions": [], "firings": [], "ledger": {"missing": 0}, "verdict": verdict}
    (folder / "provider.json").write_text(json.dumps(provider))
    (folder / "journal.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in [*noting(), told(), balance()])
    )
    size = {"output_size_bytes": video.stat().st_size}
    rows: dict[str, list[Any]] = {
        "generation.generations": [row(**size)],
        "credits.reservations": [
            {"user_id": USER, "reservation_id": G, **GOOD.reservations[USER, G]}
        ],
        "credits.accounts": [{"user_id": USER, **GOOD.accounts[USER]}],
        "credits.transactions": list(GOOD.transactions),
        **{
            f"generation.{name}": []
            for name in ("attempts", "predictions", "transitions", "prediction_events")
        },
        "webhook.inbox": [],
    }
    (folder / "requests.jsonl").touch()
    for name, lines in rows.items():
        text = "".join(json.dumps(line, default=lambda at: at.isoformat()) + "\n" for line in lines)
        (folder / "tables" / f"{name}.jsonl").write_text(text)
    return folder


@pytest.mark.parametrize(
    ("title", "said"), [("job1", "COMPLETED by []"), ("job2", "its video is of 'job2'")]
)
def test_a_folder_is_judged_by_a_program(tmp_path: Path, title: str, said: str) -> None:
    folder = written(tmp_path, title)

    run = subprocess.run(
        [sys.executable, "-m", "tests.chaos.stack.judge", folder],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert run.returncode == 1, run.stderr
    assert said in run.stdout
    assert ("its video is of" in run.stdout) == (title != JOB)
    assert run.stdout.splitlines()[-1].endswith("violations")
