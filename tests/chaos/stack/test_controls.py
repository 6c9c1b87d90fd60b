"""A fault that is planted in the product is found in what a run of the whole stack leaves."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.stack.controls import CONTROLS, SETTINGS, findings_of, is_as_it_must_be
from tests.chaos.stack.performance import databases_at

QUICK = replace(SETTINGS, jobs=6, load_s=1.0)
FORGETFUL = next(
    control for control in CONTROLS if control.name == "a webhook is acknowledged and not stored"
)


@pytest.mark.timeout(120)
async def test_a_webhook_that_is_acknowledged_and_forgotten_is_found(tmp_path: Path) -> None:
    databases = databases_at(tmp_path, None)

    findings = await findings_of(FORGETFUL, tmp_path / "run", databases, QUICK)

    assert is_as_it_must_be(FORGETFUL, findings), findings
