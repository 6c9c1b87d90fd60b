"""What all tests share: databases of their own, on both kinds of server."""

import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.runtime.migrations import migrate
from tests.postgresql import PostgresqlServer, running_postgresql

NewDatabase = Callable[[str], str]
"""Takes a service's name and returns the URL of a migrated, empty database for it."""


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """One PostgreSQL server for the whole run."""
    with running_postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """Migrated databases to copy, by backend and service; a migration costs more than a copy."""
    return {("folder", ""): str(tmp_path_factory.mktemp("templates"))}


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """The kind of database that the test runs on: it runs once for each."""
    kind: str = request.param
    return kind


@pytest.fixture
def new_database(
    backend: str,
    tmp_path: Path,
    templates: dict[tuple[str, str], str],
    request: pytest.FixtureRequest,
) -> NewDatabase:
    def on_sqlite(service: str) -> str:
        template = templates.get((backend, service))
        if template is None:
            template = f"{templates['folder', '']}/{service}.sqlite3"
            migrate(service, f"sqlite:///{template}")
            templates[backend, service] = template
        path = tmp_path / f"{service}-{uuid.uuid4().hex}.sqlite3"
        shutil.copy(template, path)
        return f"sqlite:///{path}"

    def on_postgresql(service: str) -> str:
        server: PostgresqlServer = request.getfixturevalue("postgresql")
        template = templates.get((backend, service))
        if template is None:
            template = server.create_database()
            migrate(service, server.url(template))
            templates[backend, service] = template
        return server.url(server.create_database(template))

    return on_sqlite if backend == "sqlite" else on_postgresql
