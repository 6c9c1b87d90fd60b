"""One evening is looked at from all sides."""

import pytest

from tests.end_to_end.telemetry.evening import Evening, spend_evening


@pytest.fixture(scope="session")
def evening(tmp_path_factory: pytest.TempPathFactory) -> Evening:
    return spend_evening(tmp_path_factory.mktemp("evening"))
