"""A service that does what its caller asks for, with the real server and channel around it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import grpc
import pytest
from google.protobuf import wrappers_pb2

from services.runtime.errors import FieldViolation
from services.runtime.health import Examine
from services.runtime.identity import Callers
from services.runtime.metrics import Metrics
from services.runtime.server import ServedService, Server, ServerSettings
from services.runtime.tls import Certificates
from tests.serving import free_address, serving

NAME = "reelworks.toy.v1.ToyService"
DOMAIN = "toy.reelworks.dev"
Text = wrappers_pb2.StringValue

Handler = Callable[[str, Any], Awaitable[str]]


def check_text(request: Text) -> Iterator[FieldViolation]:
    if request.value == "malformed":
        yield FieldViolation("value", "must be well formed")


@dataclass
class Toy:
    """The service, its server, and what its callers have."""

    address: str
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    leave: asyncio.Event = field(default_factory=asyncio.Event)
    handler: Handler | None = None
    """What Ask does; the tests put it here."""
    asked: int = 0
    channel: grpc.aio.Channel = field(init=False)

    async def ask(self, request: Text, context: Any) -> Text:
        self.asked += 1
        if self.handler is None:
            return Text(value=f"heard {request.value}")
        return Text(value=await self.handler(request.value, context))

    async def stream(self, request: Text, context: Any) -> AsyncIterator[Text]:
        yield Text(value="first")
        if self.handler is not None:
            yield Text(value=await self.handler(request.value, context))
        await self.stopping.wait()

    def register(self, server: grpc.aio.Server) -> None:
        codecs: dict[str, Any] = {
            "request_deserializer": Text.FromString,
            "response_serializer": Text.SerializeToString,
        }
        methods = {
            "Ask": grpc.unary_unary_rpc_method_handler(self.ask, **codecs),
            "Stream": grpc.unary_stream_rpc_method_handler(self.stream, **codecs),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, methods),))

    def unary(self, channel: grpc.aio.Channel | None = None) -> Any:
        """Returns the method Ask of a stub."""
        return (channel or self.channel).unary_unary(
            f"/{NAME}/Ask",
            request_serializer=Text.SerializeToString,
            response_deserializer=Text.FromString,
        )

    def streaming(self, channel: grpc.aio.Channel | None = None) -> Any:
        """Returns the method Stream of a stub."""
        return (channel or self.channel).unary_stream(
            f"/{NAME}/Stream",
            request_serializer=Text.SerializeToString,
            response_deserializer=Text.FromString,
        )


Start = Callable[..., contextlib.AbstractAsyncContextManager[Toy]]


def new_server(
    toy: Toy,
    leave: asyncio.Event,
    request_bytes_max: Mapping[str, int] = MappingProxyType({}),
    callers: Callers = MappingProxyType({}),
    examine: Examine | None = None,
    metrics: Metrics | None = None,
    **settings: Any,
) -> Server:
    given: dict[str, Any] = {"address": toy.address, "drain_s": 0, "grace_s": 10} | settings
    return Server(
        settings=ServerSettings(**given),
        domain=DOMAIN,
        services=[ServedService(NAME, toy.register)],
        stopping=toy.stopping,
        checks={"google.protobuf.StringValue": check_text},
        leave=leave,
        callers=callers,
        examine=examine,
        request_bytes_max=request_bytes_max,
        metrics=metrics,
    )


@contextlib.asynccontextmanager
async def running_toy(
    request_bytes_max: Mapping[str, int] = MappingProxyType({}),
    callers: Callers = MappingProxyType({}),
    examine: Examine | None = None,
    certificates: Certificates | None = None,
    metrics: Metrics | None = None,
    **settings: Any,
) -> AsyncIterator[Toy]:
    """Runs the service with these settings until the block ends."""
    toy = Toy(free_address())

    async def serve(leave: asyncio.Event) -> None:
        toy.leave = leave
        server = new_server(toy, leave, request_bytes_max, callers, examine, metrics, **settings)
        await server.serve()

    async with serving(serve, toy.address, certificates) as channel:
        toy.channel = channel
        yield toy


@pytest.fixture
async def toy() -> AsyncIterator[Toy]:
    async with running_toy() as running:
        yield running
