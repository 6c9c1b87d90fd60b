import asyncio
import math
import time

import pytest

from services.simulator.clock import Clock


def test_a_skew_is_shown_but_not_lived_by() -> None:
    clock = Clock()
    clock.skew_s = -300.0

    assert clock.now() == pytest.approx(time.time(), abs=5)
    assert clock.shown() == pytest.approx(time.time() - 300, abs=5)


async def test_a_jump_wakes_who_sleeps_until_a_moment_that_has_come() -> None:
    clock = Clock()
    hour, ever = (
        asyncio.create_task(clock.sleep_until(moment)) for moment in (clock.now() + 3600, math.inf)
    )
    await asyncio.sleep(0)

    clock.jump(3601)

    await asyncio.wait_for(hour, 10)
    assert not ever.done()
    ever.cancel()
    clock.reset()
    assert clock.now() == pytest.approx(time.time(), abs=5)
