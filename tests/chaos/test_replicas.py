"""Two replicas on one PostgreSQL: one is killed, or stands still, or both, and the work goes on.

REELWORKS_TEST_CHAOS_JOBS says how many jobs run when one is killed; a run for the record takes 500.
"""

import asyncio
import json
import os
import signal
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from services.client.generations import GenerationClient, new_generation_id
from services.generation.timing import FAST
from services.runtime.errors import Conflict, DeadlineExceeded, Unavailable
from services.simulator.faults.action import Operation
from services.simulator.faults.actions import SlowBoot
from services.simulator.faults.fault import Match
from tests.chaos.evidence import Limits
from tests.chaos.house import Ground, opened_house
from tests.chaos.running import PROMPT, Scene, eventually, opened_scene

JOBS = int(os.environ.get("REELWORKS_TEST_CHAOS_JOBS", "60"))
LEASE_S = FAST.provider_lease_s
LOADED_S = float(os.environ.get("REELWORKS_TEST_CHAOS_LOADED_S", "10"))
"""How much later anything may happen on a machine with much else to do."""
MANY = {
    "CREATES_BURST": str(JOBS),
    "IN_FLIGHT_MAX": str(2 * JOBS),
    "POLLS_PER_S": "50",
    "UNFINISHED_MAX": str(JOBS),
    "DURATIONS": json.dumps({"provider_call_s": 2.0}),
}
LIMITS = Limits(provider_call_s=2.0, creates_burst=JOBS, in_flight_max=2 * JOBS)
BOOT_S = 8.0
SPEED = 100.0


@pytest.mark.timeout(240)
async def test_the_jobs_of_a_killed_replica_go_on_within_its_lease(
    ground: Ground, record_property: Any
) -> None:
    with opened_house(ground, replicas=2) as house:
        async with opened_scene(house, "postgresql") as scene:
            boot = SlowBoot(boot_s=(BOOT_S + JOBS / 25) * SPEED)
            match = Match(operation=Operation.LIFE, token=house.token)
            slow = await scene.simulator.fault(boot, match, times=None)
            for replica in range(2):
                house.start(scene.url, replica=replica, settings=MANY)
            for replica in range(2):
                assert await house.ready(replica)
            await asyncio.gather(*(scene.create() for _ in range(JOBS)))
            await eventually(lambda: all_in(scene, "RUNNING"))
            dead = house.replicas[0].process
            assert dead is not None
            await eventually(lambda: works(scene, dead.process_id))
            dead.kill()
            killed_at = datetime.now(UTC)
            takeover = await taken_over(scene, dead.process_id, killed_at)
            await scene.simulator.remove(slow)
            await scene.settled(60.0 + JOBS / 5)
            findings = await scene.verdict(LIMITS)
            stages = await scene.stages()

    said = f"{JOBS} jobs: {takeover}"
    record_property("takeover", said)
    print(said)  # noqa: T201
    assert takeover.leased_s <= LEASE_S + 1.0 + LOADED_S
    assert takeover.waiting_s <= LEASE_S + 1.0 + LOADED_S
    assert findings == []
    assert list(stages.values()) == ["COMPLETED"] * JOBS


@dataclass
class Takeover:
    """How the jobs of the dead went on."""

    leased: int = 0
    leased_s: float = 0.0
    """How long after the kill the last was taken up of those that it worked on."""
    waiting: int = 0
    waiting_s: float = 0.0
    """By how much the last was late of those that waited for their time."""

    def __str__(self) -> str:
        return (
            f"{self.leased} under way taken over within {self.leased_s:.2f} s of the kill, "
            f"{self.waiting} that waited at most {self.waiting_s:.2f} s late"
        )


async def all_in(scene: Scene, stage: str) -> bool:
    return set((await scene.stages()).values()) == {stage}


async def last_of(scene: Scene, process_id: int) -> dict[str, Any]:
    """Returns the rows that a process had last, by generation."""
    return {
        row["generation_id"]: row
        for row in await scene.books.claims()
        if str(row["claimed_by"]).endswith(f":{process_id}")
    }


async def works(scene: Scene, process_id: int) -> bool:
    return len(await last_of(scene, process_id)) > JOBS // 4


async def taken_over(scene: Scene, dead: int, killed_at: datetime) -> Takeover:
    """Watches until the other replica has taken up each job that the dead one had last."""
    mine = await last_of(scene, dead)
    assert mine, "the killed replica had nothing to do"
    takeover, ends_at = Takeover(), time.monotonic() + 60.0
    while mine:
        assert time.monotonic() < ends_at, f"nobody took over {list(mine)}"
        now = datetime.now(UTC)
        for row in await scene.books.claims():
            old = mine.get(row["generation_id"])
            if old is None or row["fence"] == old["fence"]:
                continue
            del mine[row["generation_id"]]
            if old["claims"] > 0:
                takeover.leased += 1
                takeover.leased_s = max(takeover.leased_s, (now - killed_at).total_seconds())
            else:
                takeover.waiting += 1
                late_s = (now - max(old["due_at"], killed_at)).total_seconds()
                takeover.waiting_s = max(takeover.waiting_s, late_s)
        await asyncio.sleep(0.1)
    return takeover


@pytest.mark.timeout(150)
async def test_a_replica_that_stands_still_and_goes_on_does_no_harm(ground: Ground) -> None:
    with opened_house(ground, replicas=2) as house:
        async with opened_scene(house, "postgresql") as scene:
            frozen = house.start(scene.url, failpoints="submit.claimed=3:STOP")
            assert await house.ready()
            house.start(scene.url, replica=1)
            assert await house.ready(1)
            ids = [new_generation_id() for _ in range(6)]
            await asyncio.gather(*(ask(scene, house.replicas[0].address, one) for one in ids))

            async def stands_still() -> bool:
                return frozen.is_stopped

            await eventually(stands_still)
            stood_still_at = time.monotonic()
            async with asyncio.TaskGroup() as tasks:
                for one in ids:
                    tasks.create_task(ask_until_answered(scene, house.replicas[1].address, one))
            still_s = FAST.provider_lease_s + FAST.provider_call_s + FAST.search_grace_s + 2
            await asyncio.sleep(max(still_s - (time.monotonic() - stood_still_at), 0))
            frozen.send(signal.SIGCONT)
            await asyncio.sleep(1.0)  # What it had begun comes out now.
            await scene.settled()
            findings = await scene.verdict()
            stages = await scene.stages()

    assert findings == []
    assert [stages.get(one) for one in ids] == ["COMPLETED"] * len(ids)


async def ask(scene: Scene, address: str, generation_id: str) -> bool:
    """Asks one replica for a video; returns whether it answered.

    One that stands still does not, and it may hold rows that another is asked for.
    """
    async with GenerationClient(address) as client:
        one = Scene(
            scene.house, scene.url, scene.books, client, scene.credits_, scene.simulator,
            scene.user_id,
        )  # fmt: skip
        try:
            async with asyncio.timeout(3.0):
                await one.create(PROMPT, generation_id)
        except (TimeoutError, Conflict, Unavailable, DeadlineExceeded):
            return False
    return True


async def ask_until_answered(scene: Scene, address: str, generation_id: str) -> None:
    """Asks one replica for a video as errors tell a client to: again, with the same id."""
    ends_at = time.monotonic() + 45.0
    while not await ask(scene, address, generation_id):
        assert time.monotonic() < ends_at, f"{generation_id} was never answered"
        await asyncio.sleep(0.2)


@pytest.mark.timeout(150)
async def test_all_replicas_killed_at_once_lose_nothing(ground: Ground) -> None:
    with opened_house(ground, replicas=2) as house:
        async with opened_scene(house, "postgresql") as scene:
            await begin(scene)
            ids = await asyncio.gather(*(scene.create() for _ in range(8)))
            await eventually(lambda: under_way(scene))
            house.kill_all()
            await begin(scene)
            await scene.settled()
            findings = await scene.verdict()
            stages = await scene.stages()

    assert findings == []
    assert [stages.get(one) for one in ids] == ["COMPLETED"] * len(ids)


@pytest.mark.timeout(150)
async def test_a_replica_that_is_told_to_leave_and_then_killed_loses_nothing(
    ground: Ground,
) -> None:
    with opened_house(ground, replicas=2) as house:
        async with opened_scene(house, "postgresql") as scene:
            await begin(scene)
            ids = await asyncio.gather(*(scene.create() for _ in range(8)))
            await eventually(lambda: under_way(scene))
            for place in house.replicas:
                assert place.process is not None
                place.process.send(signal.SIGTERM)
            await asyncio.sleep(0.1)  # In the middle of leaving.
            house.kill_all()
            await begin(scene)
            await scene.settled()
            findings = await scene.verdict()
            stages = await scene.stages()

    assert findings == []
    assert [stages.get(one) for one in ids] == ["COMPLETED"] * len(ids)


async def begin(scene: Scene) -> None:
    for replica in range(len(scene.house.replicas)):
        scene.house.start(scene.url, replica=replica)
    for replica in range(len(scene.house.replicas)):
        assert await scene.house.ready(replica)


async def under_way(scene: Scene) -> bool:
    """Tells whether some are being submitted, run or saved."""
    stages = set((await scene.stages()).values())
    return bool(stages & {"SUBMITTING", "RUNNING", "ARCHIVING", "COMMITTING"})
