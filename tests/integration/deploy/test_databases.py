"""Compose's PostgreSQL has a database for each service, and each enters only its own."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgresql import PostgresqlServer, running_postgresql

ROOT = Path(__file__).parents[3]
SERVICES = ("credits", "generation", "webhook")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresqlServer]:
    secrets = tmp_path_factory.mktemp("secrets")
    for name in SERVICES:
        (secrets / f"{name}_database_password").write_text(f"{name}0123\n")
    with running_postgresql() as server:
        done = subprocess.run(
            [ROOT / "deploy/compose/postgresql/databases.sh"],
            env={
                "PATH": f"{server.binaries}:{os.environ['PATH']}",
                "PGHOST": "127.0.0.1",
                "PGPORT": str(server.port),
                "SECRETS": str(secrets),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
        )
        assert done.returncode == 0, done.stderr
        yield server


def entered(server: PostgresqlServer, role: str, database: str) -> str:
    """Returns what comes of making a table as a role in a database."""
    done = subprocess.run(
        [
            server.binaries / "psql", "--no-psqlrc", "--tuples-only", "--no-align",
            f"postgresql://{role}@127.0.0.1:{server.port}/{database}",
            "--command", "CREATE TABLE mine (n int)", "--command", "DROP TABLE mine",
        ],
        capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    return (done.stdout + done.stderr).strip()


@pytest.mark.parametrize("database", [*SERVICES, "postgres"])
@pytest.mark.parametrize("role", SERVICES)
def test_a_role_enters_its_own_database_and_no_other(
    server: PostgresqlServer, role: str, database: str
) -> None:
    answer = entered(server, role, database)

    if role == database:
        assert answer == "CREATE TABLE\nDROP TABLE"
    else:
        assert f'permission denied for database "{database}"' in answer


def test_roles_have_passwords_and_no_powers(server: PostgresqlServer) -> None:
    rows = server.execute(
        "SELECT rolname, rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication,"
        " rolpassword LIKE 'SCRAM-SHA-256$%' FROM pg_authid WHERE rolname NOT LIKE 'pg\\_%'"
        " AND rolname <> 'postgres' ORDER BY 1"
    )

    assert rows.splitlines() == [f"{name}|f|t" for name in SERVICES]
