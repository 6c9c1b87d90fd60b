"""The ground that the houses of a worker of pytest stand on."""

from collections.abc import Iterator

import pytest

from tests.chaos.house import Ground, prepared_ground
from tests.postgresql import PostgresqlServer


@pytest.fixture(scope="session")
def ground(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Ground]:
    def postgresql() -> PostgresqlServer:
        server: PostgresqlServer = request.getfixturevalue("postgresql")
        return server

    with prepared_ground(tmp_path_factory.mktemp("chaos"), postgresql) as prepared:
        yield prepared
