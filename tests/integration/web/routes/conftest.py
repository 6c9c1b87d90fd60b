from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.generation.simulator_process import Simulator
from tests.integration.web.backend import MEDIA_URL, Backend
from tests.integration.web.routes.api import Api
from tests.integration.web.studio import Studio, running_studio, web_settings


@pytest.fixture
async def studio(tmp_path: Path, services: Backend) -> AsyncIterator[Studio]:
    """A web service whose rates are in nobody's way."""
    settings = web_settings(
        tmp_path,
        credits_address=services.credits.address,
        generation_address=services.generation_address,
        callback_keys_file=services.keys_file,
        storage_url=services.files.as_uri(),
        media_url=MEDIA_URL,
        creates_per_minute=1_000_000,
        uploads_per_minute=1_000_000,
        calls_per_minute=1_000_000,
    )
    async with running_studio(settings) as running:
        yield running


@pytest.fixture
async def api(studio: Studio, services: Backend) -> Api:
    return Api(studio, services, await studio.client())


@pytest.fixture
async def faulty(simulator: Simulator) -> AsyncIterator[Simulator]:
    """A provider that can be told to fail; afterwards it works again."""
    await simulator.reset()
    yield simulator
    await simulator.reset()
