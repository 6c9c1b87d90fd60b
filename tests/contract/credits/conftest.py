"""The credits service on loopback, with a database of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import pytest
from reelworks.credits.v1 import credits_pb2, credits_pb2_grpc

from services.credits.__main__ import serve
from services.credits.settings import CreditsSettings
from services.runtime.channel import invoke
from services.runtime.database import open_database
from services.runtime.errors import InvalidRequest, ServiceError
from tests.conftest import NewDatabase
from tests.ledger_verification import problems
from tests.serving import free_address, serving

Raised = TypeVar("Raised", bound=ServiceError)


@dataclass(frozen=True)
class Credits:
    """What a caller of the service has."""

    stub: Any
    """Untyped, since the generated type of an asynchronous stub is not a class at run time."""
    channel: grpc.aio.Channel
    database_url: str
    leave: asyncio.Event
    """Tells the service to stop."""

    async def call(self, method: str, **fields: Any) -> Any:
        """Calls a method with a request of these fields; raises ServiceError."""
        request = getattr(credits_pb2, f"{method}Request")(**fields)
        return await invoke(getattr(self.stub, method), request)

    async def open(self, user_id: str = "ada") -> None:
        """Opens an account with 100 credits."""
        await self.call("OpenAccount", user_id=user_id)

    async def balance(self, user_id: str = "ada") -> tuple[int, int, int]:
        """Returns what is available, what is reserved, and the version."""
        balance = await self.call("GetBalance", user_id=user_id)
        return balance.available_credits, balance.reserved_credits, balance.version


async def refusal(kind: type[Raised], call: Awaitable[Any]) -> tuple[str, dict[str, str]]:
    """Returns reason and metadata of the error of this kind that a call raises."""
    with pytest.raises(kind) as raised:
        await call
    assert type(raised.value) is kind
    assert raised.value.message
    return raised.value.reason, raised.value.metadata


async def bad_fields(call: Awaitable[Any]) -> set[str]:
    """Returns the fields that a malformed request is refused for."""
    with pytest.raises(InvalidRequest) as raised:
        await call
    assert raised.value.reason == "INVALID_FIELD"
    return {violation.field for violation in raised.value.violations}


@pytest.fixture
def database_url(new_database: NewDatabase) -> str:
    return new_database("credits")


@pytest.fixture
async def credits_service(database_url: str) -> AsyncIterator[Credits]:
    url, address = database_url, free_address()
    settings = CreditsSettings(address=address, database_url=url, drain_s=0, grace_s=2)
    told: list[asyncio.Event] = []

    def start(leave: asyncio.Event) -> Coroutine[Any, Any, None]:
        told.append(leave)
        return serve(settings, leave)

    async with serving(start, address) as channel:
        yield Credits(credits_pb2_grpc.CreditsServiceStub(channel), channel, url, told[0])
    database = open_database(url)
    try:
        assert await problems(database) == []
    finally:
        await database.close()
