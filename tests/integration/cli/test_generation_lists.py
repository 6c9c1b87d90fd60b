"""`reelworks generations …` as it is typed, against a generation service that runs."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.generation.state import Stage
from tests.conftest import NewDatabase
from tests.contract.generation.harness import Service, running_service
from tests.integration.cli.test_commands import reelworks
from tests.integration.generation.credits_service import running_credits
from tests.integration.generation.harness import USER, generation_in

BEGAN = datetime(2026, 5, 4, tzinfo=UTC)
NUMBER = 1203
"""More than a page of a thousand."""


@pytest.fixture(params=["sqlite"])
def backend(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
async def service(
    new_database: NewDatabase, tmp_path: Path, templates: dict[tuple[str, str], str]
) -> AsyncIterator[Service]:
    async with (
        running_credits(tmp_path, templates) as credits_service,
        running_service(new_database("generation"), credits_service) as running,
    ):
        yield running


async def test_a_history_is_cut_with_a_note_or_shown_whole(
    service: Service, tmp_path: Path
) -> None:
    history = [
        generation_in(Stage.FAILED, created_at=BEGAN - timedelta(seconds=second))
        for second in range(NUMBER)
    ]
    await service.replica.insert(*history)

    async def listed(*arguments: str) -> tuple[list[str], str]:
        result = await asyncio.to_thread(
            reelworks, tmp_path, "generations", "list", "--user", USER, "--json", *arguments,
            REELWORKS_GENERATION_ADDRESS=service.address,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        documents = [json.loads(line) for line in result.stdout.splitlines()]
        return [document["generation_id"] for document in documents], result.stderr

    newest, note = await listed()
    more, _ = await listed("--limit", "1100")
    everything, silence = await listed("--all")
    exactly, nothing_left = await listed("--limit", str(NUMBER))

    expected = [generation.generation_id for generation in history]
    assert (newest, more) == (expected[:50], expected[:1100])
    assert note == "there are more than 50: add --all, or a greater --limit\n"
    assert everything == exactly == expected
    assert silence == nothing_left == ""
