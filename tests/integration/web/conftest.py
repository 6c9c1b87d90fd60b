from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.generation.credits_service import CreditsService, running_credits
from tests.integration.generation.simulator_process import Simulator, running_simulator
from tests.integration.web.backend import SPEED, Backend, running_backend
from tests.integration.web.studio import Studio, running_studio, web_settings


@pytest.fixture(scope="session")
def simulator() -> Iterator[Simulator]:
    """The provider's stand-in, for the whole run."""
    with running_simulator(SPEED) as running:
        yield running


@pytest.fixture
async def services(
    tmp_path: Path, templates: dict[tuple[str, str], str], simulator: Simulator
) -> AsyncIterator[Backend]:
    """Credits and generation, without accounts."""
    async with running_backend(tmp_path, templates, simulator) as running:
        yield running


@pytest.fixture
async def studio(tmp_path: Path, services: Backend) -> AsyncIterator[Studio]:
    """The web service before them."""
    settings = web_settings(
        tmp_path,
        credits_address=services.credits.address,
        generation_address=services.generation_address,
        callback_keys_file=services.keys_file,
        storage_url=services.files.as_uri(),
        media_url="http://studio.example/media",
    )
    async with running_studio(settings) as running:
        yield running


@pytest.fixture
async def credits_service(
    tmp_path: Path, templates: dict[tuple[str, str], str]
) -> AsyncIterator[CreditsService]:
    async with running_credits(tmp_path, templates) as running:
        yield running


@pytest.fixture
async def lobby(tmp_path: Path, credits_service: CreditsService) -> AsyncIterator[Studio]:
    """A web service before credits alone, for what is about who asks."""
    settings = web_settings(tmp_path, credits_address=credits_service.address)
    async with running_studio(settings) as running:
        yield running
