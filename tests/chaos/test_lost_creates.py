"""Creates that make something, or may have: each with a crash, and nothing is lost or paid twice.

REELWORKS_TEST_CHAOS_ROUNDS says how often each fault and each point come at the least.
"""

import pytest

from tests.chaos.cases import ROUNDS, Effect, pair
from tests.chaos.house import Ground
from tests.chaos.running import HOUSES, run_cases

CASES = [case for case in pair(ROUNDS) if case.fault.effect in (Effect.LOST, Effect.HARMLESS)]


@pytest.mark.timeout(120 + 10 * len(CASES))
async def test_creates_that_come_off_meet_crashes(ground: Ground) -> None:
    outcomes = await run_cases(ground, CASES, HOUSES)

    assert [str(outcome) for outcome in outcomes if not outcome.is_good] == []
    assert len(outcomes) == len(CASES)
