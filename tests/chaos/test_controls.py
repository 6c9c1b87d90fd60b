"""Products without one of the safeguards are caught by the judge that finds nothing in ours."""

import asyncio
import signal
from collections.abc import Sequence

import pytest

from services.client.generations import new_generation_id
from services.simulator.faults.action import Operation
from services.simulator.faults.actions import SlowBytes
from services.simulator.faults.fault import Match
from tests.chaos.cases import FAULTS, Case, Point, Traffic
from tests.chaos.house import Ground, opened_house
from tests.chaos.judge import Finding
from tests.chaos.products import BLIND, HONEST, LATE, UNFENCED
from tests.chaos.running import Scene, eventually, opened_scene, run_case

LOST = next(fault for fault in FAULTS if fault.name == "create_then_drop")
PAST_THE_SEND_BEFORE_S = 5.5
ANSWER_BYTES_PER_S = 1_800.0
"""An answer takes longer than the video, and less than a call may."""


def rules(findings: Sequence[Finding]) -> set[str]:
    return {finding.rule for finding in findings}


@pytest.mark.parametrize(("product", "caught"), [(HONEST, set()), (BLIND, {"J1", "J7"})])
async def test_a_blind_resubmission_is_caught(
    ground: Ground, product: str, caught: set[str]
) -> None:
    case = Case(0, LOST, Point("COMMITTING.answered"), Traffic.PLAIN)
    with opened_house(ground) as house:
        outcome = await run_case(house, case, product)

    assert rules(outcome.findings) >= caught, outcome
    assert caught or outcome.is_good, outcome


@pytest.mark.parametrize(("product", "caught"), [(HONEST, set()), (UNFENCED, {"J9"})])
async def test_a_write_without_the_fence_is_caught(
    ground: Ground, product: str, caught: set[str]
) -> None:
    with opened_house(ground) as house:
        async with opened_scene(house) as scene:
            generation_id = new_generation_id()
            # While the answer to a look drips in, a webhook tells of the end.
            slow = SlowBytes(bytes_per_s=ANSWER_BYTES_PER_S)
            at = Match(operation=Operation.GET, generation=generation_id)
            await scene.simulator.fault(slow, at, times=2)
            house.start(scene.url, product=product)
            assert await house.ready()
            await scene.create(generation_id=generation_id)
            await quiet(scene)
            findings = await scene.verdict()

    assert rules(findings) >= caught, findings
    assert caught or not findings, findings


@pytest.mark.parametrize(("product", "caught"), [(HONEST, set()), (LATE, {"J7"})])
async def test_a_create_that_is_sent_too_late_is_caught(
    ground: Ground, product: str, caught: set[str]
) -> None:
    with opened_house(ground) as house:
        async with opened_scene(house) as scene:
            process = house.start(scene.url, failpoints="submit.claimed=1:STOP", product=product)
            assert await house.ready()
            await scene.create()

            async def stands_still() -> bool:
                return process.is_stopped

            await eventually(stands_still)
            await asyncio.sleep(PAST_THE_SEND_BEFORE_S)
            process.send(signal.SIGCONT)
            await scene.settled()
            findings = await scene.verdict()
            stages = await scene.stages()

    assert rules(findings) >= caught, findings
    assert caught or not findings, findings
    assert set(stages.values()) == {"COMPLETED"}


async def quiet(scene: Scene) -> None:
    """Waits until everything is done and what was slow has come in too."""
    await scene.settled()
    await asyncio.sleep(1.0)
    # A product that spoils its own rows may never be done with them.
    try:
        await scene.settled(10.0)
    except TimeoutError:
        return
