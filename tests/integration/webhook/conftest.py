import pytest

from tests.conftest import NewDatabase


@pytest.fixture
def url(new_database: NewDatabase) -> str:
    """URL of an empty database of the webhook service; tests run once on each kind."""
    return new_database("webhook")
