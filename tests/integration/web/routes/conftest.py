from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.generation.simulator_process import Simulator
from tests.integration.web.backend import Backend
from tests.integration.web.routes.api import Api
from tests.integration.web.studio import Studio, running_studio, settings_before


@pytest.fixture
async def studio(tmp_path: Path, services: Backend) -> AsyncIterator[Studio]:
    """A web service whose rates are in nobody's way."""
    settings = settings_before(tmp_path, services)
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
