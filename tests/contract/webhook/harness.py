"""The webhook service on loopback with a database of its own, and a generation behind it."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import grpc
import pytest
from pydantic import SecretStr
from reelworks.webhook.v1 import webhook_pb2, webhook_pb2_grpc

from services.runtime.channel import invoke
from services.runtime.errors import InvalidRequest, ServiceError
from services.webhook.__main__ import serve
from services.webhook.ingress import WEBHOOK_PATH
from services.webhook.settings import WebhookSettings
from tests.integration.webhook.harness import (
    CALLBACK_KEY,
    SECRET,
    Disposition,
    FakeGeneration,
    eventually,
    headers_of,
)
from tests.integration.webhook.harness import serving as serving_generation
from tests.serving import free_address, serving

Raised = TypeVar("Raised", bound=ServiceError)
State = webhook_pb2.Event.State
GOOD_BODY, DEAD_BODY, LATER_BODY = b'{"id": "good"}', b"dead", b"later"


async def _judge(request: Any, times: int) -> Any:
    """Takes events but for two kinds; what was once done is told apart."""
    if request.payload.startswith(DEAD_BODY):
        return Disposition.UNREADABLE
    if request.payload.startswith(LATER_BODY):
        return grpc.StatusCode.PERMISSION_DENIED
    return Disposition.APPLIED if times == 1 else Disposition.DUPLICATE


@dataclass(frozen=True)
class Webhooks:
    """What an operator has, and what Replicate does."""

    stub: Any
    """Untyped, since the generated type of an asynchronous stub is not a class at run time."""
    operators_address: str
    address: str
    """Where it takes webhooks."""
    http: aiohttp.ClientSession
    generation: FakeGeneration

    async def call(self, method: str, **fields: Any) -> Any:
        """Calls a method with a request of these fields; raises ServiceError."""
        request = getattr(webhook_pb2, f"{method}Request")(**fields)
        return await invoke(getattr(self.stub, method), request)

    async def listed(self, **filter_: Any) -> list[Any]:
        """Returns the events that satisfy a filter, the last that came first."""
        return list((await self.call("ListEvents", filter=filter_)).events)

    async def post(self, webhook_id: str, body: bytes = GOOD_BODY, query: str = "") -> int:
        """Posts a genuine event as Replicate does, and returns the status of the answer."""
        address = f"http://{self.address}{WEBHOOK_PATH}{'?' if query else ''}{query}"
        async with self.http.post(
            address, data=body, headers=headers_of(body, webhook_id)
        ) as answer:
            return answer.status

    async def arrive(
        self, webhook_id: str, body: bytes = GOOD_BODY, query: str = "", *, until: Any = None
    ) -> Any:
        """Has an event arrive, and returns it once generation has answered."""
        assert await self.post(webhook_id, body, query) == 200
        wanted = until or {GOOD_BODY: State.DELIVERED, DEAD_BODY: State.DEAD}.get(body)

        async def found() -> Any:
            event = (await self.listed(webhook_ids=[webhook_id]))[0]
            # What waits for its next try says why the last one failed.
            answered = event.state == wanted if wanted else event.last_error
            return event if answered else None

        return await eventually(found)

    async def settled(self, event_id: str, state: Any) -> Any:
        """Returns an event once it is in a state."""

        async def found() -> Any:
            event = await self.call("GetEvent", event_id=event_id)
            return event if event.state == state else None

        return await eventually(found)


async def refusal(kind: type[Raised], call: Awaitable[Any]) -> tuple[str, dict[str, str]]:
    """Returns reason and metadata of the error of this kind that a call raises."""
    with pytest.raises(kind) as raised:
        await call
    assert type(raised.value) is kind
    return raised.value.reason, raised.value.metadata


async def bad_fields(call: Awaitable[Any]) -> set[str]:
    """Returns the fields that a malformed request is refused for."""
    with pytest.raises(InvalidRequest) as raised:
        await call
    assert raised.value.reason == "INVALID_FIELD"
    return {violation.field for violation in raised.value.violations}


@contextlib.asynccontextmanager
async def running_webhooks(
    database_url: str, folder: Path, operators_address: str = ""
) -> AsyncIterator[Webhooks]:
    """Runs the service on a migrated database until the block ends."""
    keys = folder / "callback_keys"
    keys.write_text(base64.b64encode(CALLBACK_KEY).decode())
    address, http_address = operators_address or free_address(), free_address()
    generation = FakeGeneration(_judge)
    async with serving_generation(generation) as port, aiohttp.ClientSession() as http:
        settings = WebhookSettings(
            address=address,
            http_address=http_address,
            database_url=database_url,
            generation_address=f"127.0.0.1:{port}",
            callback_keys_file=keys,
            drain_s=0,
            grace_s=2,
            REPLICATE_WEBHOOK_SECRET=SecretStr(SECRET),  # type: ignore[call-arg]  # Its alias.
        )

        def start(leave: asyncio.Event) -> Coroutine[Any, Any, None]:
            return serve(settings, leave)

        async with serving(start, address) as channel:
            stub = webhook_pb2_grpc.WebhookServiceStub(channel)
            yield Webhooks(stub, address, http_address, http, generation)
            await http.close()
