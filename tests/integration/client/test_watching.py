"""Watching goes on when the service leaves and comes back, and ends when the watcher leaves."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from reelworks.generation.v1 import generation_pb2

from services.client.generations import GenerationClient
from services.runtime.errors import NotFound, Unavailable

GENERATION_ID = "01890000-0000-7000-8000-000000000001"

Script = Callable[[generation_pb2.WatchGenerationsRequest, Any], AsyncIterator[Any]]


class Service:
    """Plays one script for each stream that is opened, and remembers what was asked."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.requests: list[generation_pb2.WatchGenerationsRequest] = []
        self.left = asyncio.Event()

    async def watch(
        self, request: generation_pb2.WatchGenerationsRequest, context: Any
    ) -> AsyncIterator[generation_pb2.WatchGenerationsResponse]:
        self.requests.append(request)
        try:
            async for response in self.scripts[len(self.requests) - 1](request, context):
                yield response
        finally:
            self.left.set()


def change(version: int) -> generation_pb2.WatchGenerationsResponse:
    return generation_pb2.WatchGenerationsResponse(
        generation=generation_pb2.Generation(
            generation_id=GENERATION_ID,
            version=version,
            update_time=Timestamp(seconds=1000 + version),
        )
    )


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@contextlib.asynccontextmanager
async def serving(service: Service, address: str) -> AsyncIterator[None]:
    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(
        service.watch,
        request_deserializer=generation_pb2.WatchGenerationsRequest.FromString,
        response_serializer=generation_pb2.WatchGenerationsResponse.SerializeToString,
    )
    name = "reelworks.generation.v1.GenerationService"
    handlers = {"WatchGenerations": handler}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])
    server.add_insecure_port(address)
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)


async def break_off(context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "leaving")


async def test_a_broken_stream_is_taken_up_where_it_was_and_older_news_are_dropped() -> None:
    async def first(_: Any, context: Any) -> AsyncIterator[Any]:
        yield change(2)
        await break_off(context)

    async def second(*_: Any) -> AsyncIterator[Any]:
        for version in (1, 2, 3):
            yield change(version)
        await asyncio.Event().wait()

    service = Service(first, second)
    address = free_address()
    seen: list[int] = []

    async with (
        serving(service, address),
        GenerationClient(address) as client,
        contextlib.aclosing(client.watch("ann", [GENERATION_ID])) as changes,
    ):
        async for generation in changes:
            seen.append(generation.version)
            if generation.version == 3:
                break

    assert seen == [2, 2, 3]
    assert not service.requests[0].HasField("updated_after")
    assert service.requests[1].updated_after.seconds == 1002
    assert service.requests[1].generation_ids == [GENERATION_ID]


async def test_leaving_the_loop_ends_the_stream_at_the_service() -> None:
    async def endless(*_: Any) -> AsyncIterator[Any]:
        yield change(1)
        await asyncio.Event().wait()

    service = Service(endless)
    address = free_address()

    async with serving(service, address), GenerationClient(address) as client:
        async with contextlib.aclosing(client.watch("ann")) as changes:
            await anext(changes)
        async with asyncio.timeout(2):
            await service.left.wait()

    assert len(service.requests) == 1


async def test_a_service_that_died_and_came_back_is_found_again() -> None:
    async def endless(*_: Any) -> AsyncIterator[Any]:
        yield change(1)
        await asyncio.Event().wait()

    address = free_address()

    later = Service(endless)

    async with (
        GenerationClient(address) as client,
        contextlib.aclosing(client.watch("ann")) as changes,
    ):
        async with serving(Service(endless), address):
            await anext(changes)
        async with serving(later, address):
            again = await anext(changes)

    assert again.version == 1
    assert len(later.requests) == 1


async def test_a_service_that_stays_away_is_given_up() -> None:
    async with GenerationClient(free_address()) as client:
        with pytest.raises(Unavailable):
            await anext(client.watch("ann", patience_s=0.5))


async def test_a_refusal_is_not_watched_again() -> None:
    async def refuse(_: Any, context: Any) -> AsyncIterator[Any]:
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such user")
        yield

    service = Service(refuse)
    address = free_address()

    async with serving(service, address), GenerationClient(address) as client:
        with pytest.raises(NotFound, match="no such user"):
            await anext(client.watch("ann"))

    assert len(service.requests) == 1
