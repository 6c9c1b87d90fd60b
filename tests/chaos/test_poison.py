"""What kills its worker every time is parked, and takes nothing else with it."""

import asyncio
import json

import pytest

from services.client.generations import Status
from services.generation import tables
from tests.chaos.house import Ground, opened_house
from tests.chaos.running import STUCK, eventually, opened_scene

LIVES_MAX = 10
POISON = "CANCELING.claimed"


@pytest.mark.timeout(120)
async def test_what_kills_at_one_line_ends_parked_and_the_others_end_well(ground: Ground) -> None:
    settings = {"DURATIONS": json.dumps({"cancel_limit_s": 60})}
    with opened_house(ground) as house:
        async with opened_scene(house) as scene:
            process = house.start(scene.url, failpoints=POISON, settings=settings)
            assert await house.ready()
            poison = await scene.create(STUCK)

            async def runs() -> bool:
                return (await scene.stages()).get(poison) == "RUNNING"

            await eventually(runs)
            others = [await scene.create() for _ in range(3)]
            canceling = asyncio.create_task(scene.clients.cancel(scene.user_id, poison))
            lives = 1
            while await asyncio.to_thread(process.wait, 30) and lives < LIVES_MAX:
                process = house.start(scene.url, failpoints=POISON, settings=settings)
                lives += 1
                while process.code is None:
                    stages = await scene.stages()
                    if stages[poison] == "PARKED":
                        break
                    await asyncio.sleep(0.05)
                if process.code is None:
                    break
            await asyncio.gather(canceling, return_exceptions=True)
            await scene.settled()
            stages = await scene.stages()
            parked = await scene.clients.parked()
            row = next(
                row
                for row in await scene.books.rows(tables.generations)
                if row["generation_id"] == poison
            )
            # An operator mends the cause, and lets it go on.
            process.kill()
            house.start(scene.url, settings=settings)
            assert await house.ready()
            await scene.clients.resume(poison)
            await scene.settled()
            ended = await scene.clients.get(scene.user_id, poison)
            findings = await scene.verdict()

    assert stages[poison] == "PARKED"
    assert [one.generation.generation_id for one in parked.parked] == [poison]
    assert "again and again" in row["park_reason"]
    assert 3 < lives < LIVES_MAX
    assert [stages[one] for one in others] == ["COMPLETED"] * len(others)
    assert ended.status is Status.CANCELED
    assert findings == []
