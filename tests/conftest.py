"""What all tests share: databases of their own, on both kinds of server."""

import os
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog

# PostgreSQL's programs are forked as another user, and gRPC's fork handlers kill such children. It
# looks for this when it is first imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
# A shell that runs this in the background has it ignore Ctrl-C, and so what it starts would.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

from services.runtime.migrations import migrate
from tests.object_storage import ObjectStorage, running_object_storage
from tests.postgresql import PostgresqlServer, running_postgresql

NewDatabase = Callable[[str], str]
"""Takes a service's name and returns the URL of a migrated, empty database for it."""


@pytest.fixture(scope="session", autouse=True)
def _plain_log() -> None:
    # By default structlog draws exceptions with all their local values, which takes seconds.
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
        ]
    )


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """One PostgreSQL server for the whole run."""
    with running_postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def object_storage() -> Iterator[ObjectStorage]:
    """One object storage for the whole run; tests take a bucket of their own."""
    with running_object_storage() as storage:
        yield storage


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
) -> Iterator[NewDatabase]:
    made: list[str] = []

    def on_sqlite(service: str) -> str:
        template = templates.get((backend, service))
        if template is None:
            template = f"{templates['folder', '']}/{service}.sqlite3"
            _migrate(service, f"sqlite:///{template}")
            templates[backend, service] = template
        path = tmp_path / f"{service}-{uuid.uuid4().hex}.sqlite3"
        shutil.copy(template, path)
        return f"sqlite:///{path}"

    def on_postgresql(service: str) -> str:
        server: PostgresqlServer = request.getfixturevalue("postgresql")
        template = templates.get((backend, service))
        if template is None:
            template = server.create_database()
            _migrate(service, server.url(template))
            templates[backend, service] = template
        made.append(server.create_database(template))
        return server.url(made[-1])

    yield on_sqlite if backend == "sqlite" else on_postgresql
    for name in made:  # Else thousands of files wait to be removed at the end of the run.
        request.getfixturevalue("postgresql").execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _migrate(service: str, url: str) -> None:
    # A thread has no event loop, which a test that asks for a database may already run in.
    with ThreadPoolExecutor(1) as threads:
        threads.submit(migrate, service, url).result()
