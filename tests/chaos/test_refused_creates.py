"""Creates that make nothing, whatever is said of them: each with a crash, and on PostgreSQL too."""

import pytest

from tests.chaos.cases import ROUNDS, Effect, pair
from tests.chaos.house import Ground
from tests.chaos.running import HOUSES, run_cases

MADE = (Effect.LOST, Effect.HARMLESS)
CASES = [case for case in pair(ROUNDS) if case.fault.effect not in MADE]
# Where leases are waited for, whoever asks again makes the reservation before a worker does.
ON_POSTGRESQL = [
    case for case in pair(ROUNDS, "postgresql") if not case.point.name.startswith("RESERVING")
][:: max(6 // ROUNDS, 2)]


@pytest.mark.timeout(120 + 10 * len(CASES))
async def test_creates_that_make_nothing_meet_crashes(ground: Ground) -> None:
    outcomes = await run_cases(ground, CASES, HOUSES)

    assert [str(outcome) for outcome in outcomes if not outcome.is_good] == []
    assert len(outcomes) == len(CASES)


@pytest.mark.timeout(120 + 10 * len(ON_POSTGRESQL))
async def test_creates_meet_crashes_on_postgresql(ground: Ground) -> None:
    outcomes = await run_cases(ground, ON_POSTGRESQL, HOUSES)

    assert [str(outcome) for outcome in outcomes if not outcome.is_good] == []
    assert len(outcomes) == len(ON_POSTGRESQL)
