"""Strangers' requests by the thousand, made from what the API says of itself, find nothing."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.runtime.settings import split_address
from services.web.server import ConnectionLimits, WebServer, listen
from tests.integration.web.backend import Backend
from tests.integration.web.studio import RATE_MAX, Studio, running_studio, settings_before
from tests.integration.web.test_openapi import operations
from tests.serving import free_address

SEED = 20_260_701
EXAMPLES = 8
"""Of each operation, besides those at the edges of every field."""
HALVES = (
    ("--include-tag", "generations"),
    # The stream has no end, which other tests wait for.
    ("--exclude-tag", "generations", "--exclude-path", "/api/events"),
)
TESTED = re.compile(r"Operations: +([0-9]+) selected")
CONFIG = """
# A body that is well-formed can ask for what the catalog does not have, or the user cannot pay.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "304", 402, 403, 404, 409, 415, 422, 429]
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 409, 413, 415, 422, 429]
"""


@pytest.fixture
async def studio(tmp_path: Path, services: Backend) -> AsyncIterator[Studio]:
    settings = settings_before(tmp_path, services, sign_ins_per_minute=RATE_MAX)
    async with running_studio(settings) as running:
        yield running


@pytest.fixture
async def address(studio: Studio) -> AsyncIterator[str]:
    """Where the app is served as in production."""
    host_and_port = free_address()
    server = WebServer(studio.app, ConnectionLimits(), grace_s=2)
    serving = asyncio.create_task(server.serve([listen(*split_address(host_and_port))]))
    try:
        yield f"http://{host_and_port}"
    finally:
        server.should_exit = True
        await serving


@pytest.mark.timeout(180)
async def test_no_request_is_answered_in_a_way_that_is_not_described(
    studio: Studio, services: Backend, address: str, tmp_path: Path
) -> None:
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    await services.credits.open("ada")
    await services.credits.add("ada", 1_000_000)
    token = studio.token("ada")

    # Side by side, as processes: its own threads trip over each other.
    outputs = await asyncio.gather(
        *(find_faults(tmp_path, address, token, *chosen) for chosen in HALVES)
    )

    assert {code for code, _ in outputs} == {0}, "\n".join(output for _, output in outputs)
    tested = [int(number) for _, output in outputs for number in re.findall(TESTED, output)]
    assert sum(tested) == len(list(operations(studio.app.openapi()))) - 1


async def find_faults(
    folder: Path, address: str, token: str, *chosen: str
) -> tuple[int | None, str]:
    """Runs all checks on some operations; returns the exit code, and what was said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli"),
        *("--config-file", str(folder / "schemathesis.toml")),
        *("run", f"{address}/openapi.json", "--checks", "all", *chosen),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES)),
        *("--seed", str(SEED), "--generation-database", "none", "--no-color"),
        *("--header", f"Authorization: Bearer {token}"),
        *("--continue-on-failure", "--request-timeout", "20"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode()
