"""The whole stack is troubled under load, by a fixed seed, and the judge finds nothing.

REELWORKS_TEST_STACK_SEED, _JOBS, _SECONDS and _KILLS make another run of it; `make chaos` makes
the long ones.
"""

import os
from pathlib import Path

import pytest

from tests.chaos.stack.exhibits import read
from tests.chaos.stack.performance import databases_at, perform
from tests.chaos.stack.plan import Settings, draw
from tests.chaos.stack.report import report_of
from tests.chaos.stack.rules import judge_all
from tests.postgresql import running_postgresql


def _told(name: str, usual: str) -> str:
    return os.environ.get(f"REELWORKS_TEST_STACK_{name}", usual)


SETTINGS = Settings(
    seed=int(_told("SEED", "1")),
    jobs=int(_told("JOBS", "40")),
    load_s=float(_told("SECONDS", "20")),
    kills=int(_told("KILLS", "10")),
    faults=16,
    deadline_s=20.0,
)
KILLS_LEAST = SETTINGS.kills // 2
"""Some find a process in other trouble, or wait at a failpoint in vain."""


@pytest.mark.timeout(300)
async def test_what_people_were_told_is_true_whatever_broke_meanwhile(tmp_path: Path) -> None:
    # A server of its own, that keeps what it has acknowledged: it is going to be restarted.
    with running_postgresql(fsync=True) as server:
        await perform(draw(SETTINGS), tmp_path, databases_at(tmp_path, server), server)

    exhibits = read(tmp_path)
    findings = judge_all(exhibits)
    report = report_of(tmp_path, exhibits, findings)

    assert findings == [], f"seed {SETTINGS.seed}: {report}"
    assert report.ends["COMPLETED"] >= SETTINGS.jobs // 5, report
    assert sum(report.kills.values()) >= KILLS_LEAST, report
    assert report.faults, report
    assert report.webhooks["stored"], report
