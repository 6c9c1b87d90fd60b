from collections.abc import AsyncIterator, Sequence

import pytest

from tests.conftest import NewDatabase
from tests.integration.generation.harness import Replica, opened_replicas


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
