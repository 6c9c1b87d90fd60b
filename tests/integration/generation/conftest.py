from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import NewDatabase
from tests.integration.generation.credits_service import CreditsService, running_credits
from tests.integration.generation.harness import USER, Replica, opened_replicas
from tests.integration.generation.house import House
from tests.integration.generation.simulator_process import Simulator, running_simulator


@pytest.fixture
def url(new_database: NewDatabase) -> str:
    return new_database("generation")


@pytest.fixture
async def replicas(url: str) -> AsyncIterator[Sequence[Replica]]:
    """Two replicas on one database."""
    async with opened_replicas(url) as opened:
        yield opened


@pytest.fixture
def replica(replicas: Sequence[Replica]) -> Replica:
    return replicas[0]


@pytest.fixture(scope="module")
def provider() -> Iterator[Simulator]:
    with running_simulator(speed=200.0) as simulator:
        yield simulator


@pytest.fixture
async def simulator(provider: Simulator) -> Simulator:
    """The provider without a past."""
    await provider.reset()
    return provider


@pytest.fixture
async def credits_service(
    tmp_path: Path, templates: dict[tuple[str, str], str]
) -> AsyncIterator[CreditsService]:
    async with running_credits(tmp_path, templates) as service:
        await service.open(USER)
        yield service


@pytest.fixture
def house(url: str, credits_service: CreditsService, simulator: Simulator, tmp_path: Path) -> House:
    return House(url, credits_service, simulator, tmp_path / "videos")
