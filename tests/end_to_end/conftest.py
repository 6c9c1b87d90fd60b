"""One stack for all tests of a worker that only use it; each test has a user of its own."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.end_to_end.running import HURRIED, Running, start


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with start(tmp_path_factory.mktemp("stack") / "var", **HURRIED) as running:
        yield running


@pytest.fixture(scope="session")
def new_user() -> Callable[[], str]:
    """Returns another user id at each call."""
    numbers = itertools.count(1)
    return lambda: f"user-{next(numbers)}"


@pytest.fixture
def user(new_user: Callable[[], str]) -> str:
    return new_user()
