"""A service that starts waits for a database that is away, and not for one that is set wrongly."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from services.client.health import is_serving
from tests.postgresql import PostgresqlServer, running_postgresql
from tests.serving import free_address

LIMIT_S = 40.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    """A server that can be away, asks for a password, and has one empty database."""
    with running_postgresql() as running:
        running.execute("CREATE DATABASE empty")
        running.execute("ALTER ROLE postgres PASSWORD 'right'")
        (running.data / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        running.restart()
        yield running


def url_of(server: PostgresqlServer, user: str, name: str) -> str:
    return f"postgresql://{user}@127.0.0.1:{server.port}/{name}"


@contextlib.contextmanager
def starting(url: str, *arguments: str, **settings: str) -> Iterator["subprocess.Popen[str]"]:
    """Runs the credits service at a database, with its log on standard error."""
    settings = {"ADDRESS": free_address(), "DATABASE_URL": url, "DRAIN_S": "0"} | settings
    environment = os.environ | {f"REELWORKS_{name}": value for name, value in settings.items()}
    with subprocess.Popen(
        [sys.executable, "-m", "services.credits", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: "subprocess.Popen[str]", words: str) -> str:
    """Returns the line that has these words, as soon as it is written."""
    assert process.stdout is not None
    return next((line for line in process.stdout if words in line), "")


@pytest.mark.parametrize("arguments", [(), ("migrate",)])
def test_a_start_gives_up_when_the_database_stays_away(arguments: tuple[str, ...]) -> None:
    url = f"postgresql://postgres:secret@{free_address()}/credits"
    with starting(url, *arguments, DATABASE_WAIT_S="1") as process:
        lines, _ = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 1
    assert "waiting for the database" in lines
    assert "database away" in lines.splitlines()[-1]
    assert "secret" not in lines


async def test_a_start_goes_on_when_the_database_comes(server: PostgresqlServer) -> None:
    address, url = free_address(), url_of(server, "postgres:right", "empty")
    with starting(url, "migrate") as migration:
        assert migration.wait(LIMIT_S) == 0
    server.stop()
    with starting(url, ADDRESS=address) as process:
        waiting = told(process, "waiting for the database")
        server.start()
        ends_at = time.monotonic() + LIMIT_S
        while not await is_serving(address):
            assert time.monotonic() < ends_at, "it does not serve"
            assert process.poll() is None, "it ended"

    assert waiting


def test_a_start_that_waits_can_be_told_to_leave() -> None:
    with starting(f"postgresql://postgres@{free_address()}/credits") as process:
        waiting = told(process, "waiting for the database")
        process.send_signal(signal.SIGTERM)
        code = process.wait(LIMIT_S)

    assert waiting
    assert code == 0


@pytest.mark.parametrize(
    ("user", "name", "why"),
    [
        ("postgres:wrong", "empty", "password authentication failed"),
        ("postgres:right", "nothing", 'database "nothing" does not exist'),
    ],
)
def test_a_start_does_not_wait_for_what_is_set_wrongly(
    server: PostgresqlServer, user: str, name: str, why: str
) -> None:
    url = url_of(server, user, name)
    with starting(url) as process:
        lines, _ = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 2
    assert lines.startswith("error: REELWORKS_DATABASE_URL: the database cannot be used: ")
    assert why in lines
    assert lines.count("\n") == 1
