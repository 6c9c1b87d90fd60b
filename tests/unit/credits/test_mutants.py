"""The bugs that `make mutants` plants are bugs of today's source."""

import shutil
from pathlib import Path

import pytest

from tests.mutants.bugs import BUGS, ROOT, Bug


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_bug_can_still_be_planted(bug: Bug, tmp_path: Path) -> None:
    for path in {replacement.path for replacement in bug.replacements}:
        copy = tmp_path / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy)

    for replacement in bug.replacements:
        replacement.apply(tmp_path)
        compile((tmp_path / replacement.path).read_text(), replacement.path, "exec")


def test_there_are_at_least_fifteen_bugs() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 15
