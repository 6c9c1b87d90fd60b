"""Watching goes on when the service leaves and comes back, and ends when the watcher leaves."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from reelworks.generation.v1 import generation_pb2

from services.client import generations
from services.client.generations import GenerationClient
from services.runtime.channel import WATCHING
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


async def test_a_watcher_hears_whether_the_service_has_its_stream() -> None:
    async def refuse(_: Any, context: Any) -> AsyncIterator[Any]:
        await break_off(context)
        yield

    async def silent(_: Any, context: Any) -> AsyncIterator[Any]:
        await context.send_initial_metadata(((WATCHING, "1"),))
        await spoken.wait()
        await break_off(context)
        yield

    async def speaking(*_: Any) -> AsyncIterator[Any]:
        yield change(1)
        await asyncio.Event().wait()

    service = Service(refuse, silent, speaking)
    address = free_address()
    said: list[bool] = []
    spoken, is_heard = asyncio.Event(), asyncio.Event()

    def hear(is_read: bool) -> None:
        said.append(is_read)
        if is_read:
            is_heard.set()

    async with (
        serving(service, address),
        GenerationClient(address) as client,
        contextlib.aclosing(client.watch("ann", heard=hear)) as changes,
    ):
        first = asyncio.create_task(anext(changes))
        async with asyncio.timeout(10):
            await is_heard.wait()
            # One that was refused was none; one that is silent is one.
            assert said[-1]
            assert not any(said[:-1])
            spoken.set()
            await first

    assert len(service.requests) == 3
    assert said[-4:] == [True, False, True, False]


async def test_a_watch_that_lasts_remembers_the_latest_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generations, "VERSIONS_MAX", 2)
    ids = [GENERATION_ID[:-1] + digit for digit in "123"]

    async def many(*_: Any) -> AsyncIterator[Any]:
        for number, (generation_id, version) in enumerate(
            [(ids[0], 5), (ids[1], 5), (ids[0], 6), (ids[2], 5), (ids[0], 5), (ids[1], 4)]
        ):
            response = change(version)
            response.generation.generation_id = generation_id
            response.generation.update_time.seconds = 1000 + number
            yield response
        await asyncio.Event().wait()

    address = free_address()
    seen: list[tuple[str, int]] = []

    async with (
        serving(Service(many), address),
        GenerationClient(address) as client,
        contextlib.aclosing(client.watch("ann")) as changes,
    ):
        async for generation in changes:
            seen.append((generation.generation_id, generation.version))
            if len(seen) == 5:
                break

    # The older version of the first was dropped; the second had changed longest ago.
    assert seen == [(ids[0], 5), (ids[1], 5), (ids[0], 6), (ids[2], 5), (ids[1], 4)]


async def test_what_is_known_comes_to_an_end() -> None:
    async def known(*_: Any) -> AsyncIterator[Any]:
        for version in (1, 2):
            yield change(version)

    service = Service(known)
    address = free_address()
    since = datetime(2026, 7, 1, tzinfo=UTC)

    async with serving(service, address), GenerationClient(address) as client:
        seen = [generation.version async for generation in client.known("ann", since)]

    assert seen == [1, 2]
    assert service.requests[0].known_only
    assert service.requests[0].updated_after.ToDatetime(UTC) == since


async def test_what_cannot_be_read_of_the_known_is_an_error_of_ours() -> None:
    async def broken(_: Any, context: Any) -> AsyncIterator[Any]:
        yield change(1)
        await break_off(context)

    address = free_address()

    async with serving(Service(broken), address), GenerationClient(address) as client:
        stream = client.known("ann")
        assert (await anext(stream)).version == 1
        with pytest.raises(Unavailable):
            await anext(stream)
