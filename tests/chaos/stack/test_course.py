"""The judge finds defects that people were told of, and what is missing of a run's evidence."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.good_run import JOB, attempt, call
from tests.chaos.stack.exhibits import Exhibits, read
from tests.chaos.stack.good_stack import (
    ENDED_BADLY,
    GOOD,
    OVER,
    WAS_GIVEN,
    balance,
    noting,
    planning,
    proofs,
    told,
    with_evidence,
)
from tests.chaos.stack.judge import main
from tests.chaos.stack.plan import Kind
from tests.chaos.stack.test_rules import written

SKIPPED: Mapping[str, Any] = {"kind": "skipped", "trouble": {"what": "kill"}}
FAILED: Mapping[str, Any] = {
    "kind": "failed", "trouble": {"what": "fault"}, "error": "ControlError()",
}  # fmt: skip


def with_troubles(*lines: Mapping[str, Any]) -> Exhibits:
    """A run in which two troubles were planned."""
    plan = planning(Kind.PLAIN, "kill", "fault")
    return replace(GOOD, noted=[plan, WAS_GIVEN, *map(dict, lines), OVER])


WRONG: Mapping[str, tuple[str, str, Exhibits]] = {
    "an unknown status without a reason": (
        "S10",
        "create was answered INTERNAL : INTERNAL: Exception iterating responses",
        replace(
            GOOD,
            told=[
                told(
                    outcome="unknown",
                    status="INTERNAL",
                    reason="",
                    message="INTERNAL: Exception iterating responses",
                ),
                *GOOD.told,
            ],
        ),
    ),
    "a plan that nobody knows": (
        "S11", "nobody knows the plan", replace(GOOD, noted=[WAS_GIVEN, OVER]),
    ),
    "a trouble that failed to happen": (
        "S11", "was to be done, and failed: ControlError()", with_troubles(SKIPPED, FAILED),
    ),
    "a trouble that is forgotten": (
        "S11", "2 troubles were planned, and 1 are accounted for", with_troubles(SKIPPED),
    ),
    "no video at all": (
        "S11",
        "videos were asked for, and none was made",
        replace(ENDED_BADLY, noted=noting(kind=Kind.PLAIN)),
    ),
    "what the provider has forgotten": (
        "S11",
        "the provider has forgotten 3 of its requests",
        replace(GOOD, provider_missing={"predictions": 0, "requests": 3}),
    ),
    "a prediction that nobody asked for": (
        "S11", f"{JOB} was made, and no create of it is known", with_evidence(calls=[]),
    ),
    "a prediction that was only read": (
        "S11",
        f"{JOB} was made, and no create of it is known",
        with_evidence(calls=[call(method="GET", path=f"/v1/predictions/{JOB}")]),
    ),
    "a balance that was not told": (
        "S11", "ada was told 0 balances", replace(GOOD, told=[told()]),
    ),
    "a balance that was told twice": (
        "S11", "ada was told 2 balances", replace(GOOD, told=[told(), balance(), balance()]),
    ),
    "a prediction of an attempt that is no attempt": (
        "J7", f"{JOB} was made by attempt 1, which is no attempt", with_evidence(attempts=[]),
    ),
    "creates that came faster than they were claimed": (
        "J4",
        "more creates until",
        with_evidence(
            attempts=[attempt(number, number) for number in range(1, 31)],
            calls=[call(0.1 + number / 1000) for number in range(30)],
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_was_wrong_with_a_run_is_found(name: str) -> None:
    rule, proof, exhibits = WRONG[name]

    assert proof in proofs(rule, exhibits)


def test_a_trouble_that_found_nobody_is_accounted_for() -> None:
    done = {"kind": "done", "trouble": {"what": "fault"}}

    assert proofs("S11", with_troubles(SKIPPED, done)) == ""


def test_creates_that_came_a_burst_faster_may_have_been_claimed_in_time() -> None:
    came = with_evidence(
        attempts=[attempt(number, number) for number in range(1, 20)],
        calls=[call(0.1 + number / 1000) for number in range(20)],
    )

    assert proofs("J4", came) == ""


def without(*names: str) -> Callable[[dict[str, Any]], None]:
    def remove(provider: dict[str, Any]) -> None:
        *path, last = names
        for name in path:
            provider = provider[name]
        del provider[last]

    return remove


@pytest.mark.parametrize(
    "spoil",
    [
        without("verdict"),
        without("verdict", "violations"),
        without("verdict", "missing_requests"),
        without("verdict", "missing_predictions"),
        without("ledger", "missing"),
        without("predictions"),
    ],
)
def test_the_provider_s_truth_is_never_taken_for_granted(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None]
) -> None:
    path = written(tmp_path, JOB) / "provider.json"
    provider = json.loads(path.read_text())
    spoil(provider)
    path.write_text(json.dumps(provider))

    with pytest.raises(KeyError):
        read(tmp_path)


@pytest.mark.parametrize(
    "name", ["requests.jsonl", "journal.jsonl", "tables/webhook.inbox.jsonl", "provider.json"]
)
def test_a_folder_that_lacks_a_file_is_not_judged(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (written(tmp_path, JOB) / name).unlink()
    monkeypatch.setattr("sys.argv", ["judge", str(tmp_path)])

    with pytest.raises(SystemExit, match="2"):
        main()

    assert Path(name).name in capsys.readouterr().err
