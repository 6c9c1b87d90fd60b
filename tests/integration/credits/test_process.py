"""The process of the credits service: how it starts, is refused, and ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.runtime.channel import connect
from tests.serving import free_address

LIMIT_S = 30


def start(*arguments: str, **settings: str) -> "subprocess.Popen[str]":
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REELWORKS_")}
    given = {f"REELWORKS_{name}": value for name, value in settings.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "services.credits", *arguments],
        env=environment | {"GRPC_VERBOSITY": "ERROR"} | given,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, list[str]]:
    """Returns the exit code and the lines on standard error of a process that ends by itself."""
    _, lines = process.communicate(timeout=LIMIT_S)
    return process.returncode, lines.splitlines()


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/credits.sqlite3"


def test_a_missing_and_a_wrong_setting_are_named_in_a_line_each(database_url: str) -> None:
    code, lines = ended(start(DATABASE_URL=database_url, WELCOME_BONUS_CREDITS="-1", DRAIN_S=""))

    assert code == 2
    assert len(lines) == 2
    assert "error: REELWORKS_ADDRESS: must be set" in lines
    assert any(line.startswith("error: REELWORKS_WELCOME_BONUS_CREDITS: ") for line in lines)


def test_an_unknown_argument_is_refused(database_url: str) -> None:
    assert ended(start("downgrade", DATABASE_URL=database_url)) == (
        2,
        ["error: usage: python -m services.credits [migrate]"],
    )


def test_a_schema_that_is_not_the_newest_is_refused(database_url: str) -> None:
    code, [line] = ended(start(ADDRESS=free_address(), DATABASE_URL=database_url))

    assert code == 2
    assert line.startswith("error: REELWORKS_DATABASE_URL: the schema is at no revision")
    assert "reelworks migrate" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_with_code_zero(
    database_url: str, number: signal.Signals
) -> None:
    assert ended(start("migrate", DATABASE_URL=database_url))[0] == 0
    address = free_address()
    process = start(ADDRESS=address, DATABASE_URL=database_url, DRAIN_S="0", LOG_FORMAT="json")
    try:
        channel = connect(address)
        await channel.channel_ready()
        second = ended(start(ADDRESS=free_address(), DATABASE_URL=database_url))
        await channel.close()
        process.send_signal(number)
        code, lines = ended(process)
    finally:
        process.kill()

    assert code == 0
    assert '"event": "left"' in lines[-1]
    assert second[0] == 2
    assert "in use by another process" in second[1][0]
