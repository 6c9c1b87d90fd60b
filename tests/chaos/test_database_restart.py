"""The database goes down in the middle, without a word, and comes back: nothing is lost."""

import asyncio
import random
from collections.abc import Iterator

import pytest

from services.client.generations import new_generation_id
from services.runtime.errors import ServiceError
from tests.chaos.house import Ground, opened_house, prepared_ground
from tests.chaos.running import PROMPT, Scene, opened_scene
from tests.postgresql import PostgresqlServer, running_postgresql

RESTARTS = 3
JOBS = 12


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    """A server that no other test uses, and that keeps what it has acknowledged."""
    with running_postgresql(fsync=True) as running:
        yield running


@pytest.fixture(scope="module")
def shaken(tmp_path_factory: pytest.TempPathFactory, server: PostgresqlServer) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("shaken")
    with prepared_ground(folder, lambda: server, backend="postgresql") as ground:
        yield ground


@pytest.mark.timeout(200)
async def test_nothing_is_lost_when_the_database_is_restarted(
    shaken: Ground, server: PostgresqlServer
) -> None:
    with opened_house(shaken) as house:
        async with opened_scene(house, "postgresql") as scene:
            house.start(scene.url)
            assert await house.ready()
            ids = [new_generation_id() for _ in range(JOBS)]
            async with asyncio.timeout(90), asyncio.TaskGroup() as tasks:
                for number, one in enumerate(ids):
                    tasks.create_task(insist(scene, one, delay_s=number * 0.25))
                tasks.create_task(shake(server))
            await scene.settled()
            findings = await scene.verdict()
            stages = await scene.stages()

    assert findings == []
    assert [stages.get(one) for one in ids] == ["COMPLETED"] * JOBS


async def shake(server: PostgresqlServer) -> None:
    for number in range(RESTARTS):
        await asyncio.sleep(random.Random(number).uniform(0.5, 1.2))  # noqa: S311
        await asyncio.to_thread(server.restart)


async def insist(scene: Scene, generation_id: str, delay_s: float) -> None:
    """Asks for a video until that is answered."""
    await asyncio.sleep(delay_s)
    while True:
        try:
            await scene.create(PROMPT, generation_id)
        except ServiceError:
            await asyncio.sleep(0.2)
        else:
            return
