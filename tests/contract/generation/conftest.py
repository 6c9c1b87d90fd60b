from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.generation.gate import GatePolicy
from tests.conftest import NewDatabase
from tests.contract.generation.harness import Service, running_service
from tests.integration.generation.credits_service import running_credits
from tests.integration.generation.harness import OPEN_GATE, USER


@pytest.fixture
def backend() -> str:
    """SQLite, unless a test names others: what depends on the database, the stores' tests show."""
    return "sqlite"


@pytest.fixture
def policy() -> GatePolicy:
    """The limits of submissions."""
    return OPEN_GATE


@pytest.fixture
async def service(
    new_database: NewDatabase,
    tmp_path: Path,
    templates: dict[tuple[str, str], str],
    policy: GatePolicy,
) -> AsyncIterator[Service]:
    """A service whose user has an account with 100 credits."""
    url = new_database("generation")
    async with (
        running_credits(tmp_path, templates) as credits_service,
        running_service(url, credits_service, policy) as running,
    ):
        await credits_service.open(USER)
        yield running
