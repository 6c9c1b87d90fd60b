"""The webhook service on loopback, with a database of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conftest import NewDatabase
from tests.contract.webhook.harness import Webhooks, running_webhooks


@pytest.fixture
async def webhooks(new_database: NewDatabase, tmp_path: Path) -> AsyncIterator[Webhooks]:
    async with running_webhooks(new_database("webhook"), tmp_path) as running:
        yield running
