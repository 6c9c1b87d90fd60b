"""A balance is watched across the service's absences, and never seen going back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from reelworks.credits.v1 import credits_pb2

from services.client import watching
from services.client.credits import CreditsClient
from services.runtime.errors import NotFound, Unavailable
from tests.serving import free_address

Script = Callable[[Any], AsyncIterator[Any]]


class Service:
    """Plays one script for each stream that is opened."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.users: list[str] = []
        self.left = asyncio.Event()

    async def watch(
        self, request: credits_pb2.WatchBalanceRequest, context: Any
    ) -> AsyncIterator[credits_pb2.WatchBalanceResponse]:
        self.users.append(request.user_id)
        try:
            async for response in self.scripts[len(self.users) - 1](context):
                yield response
        finally:
            self.left.set()


def at(version: int) -> credits_pb2.WatchBalanceResponse:
    return credits_pb2.WatchBalanceResponse(
        balance=credits_pb2.Balance(user_id="ann", available_credits=version * 10, version=version)
    )


def stays(*versions: int) -> Script:
    async def script(_: Any) -> AsyncIterator[Any]:
        for version in versions:
            yield at(version)
        await asyncio.Event().wait()

    return script


def breaks(status: grpc.StatusCode, *versions: int) -> Script:
    async def script(context: Any) -> AsyncIterator[Any]:
        for version in versions:
            yield at(version)
        await context.abort(status, "leaving")

    return script


@contextlib.asynccontextmanager
async def serving(service: Service, address: str) -> AsyncIterator[None]:
    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(
        service.watch,
        request_deserializer=credits_pb2.WatchBalanceRequest.FromString,
        response_serializer=credits_pb2.WatchBalanceResponse.SerializeToString,
    )
    name = "reelworks.credits.v1.CreditsService"
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, {"WatchBalance": handler})]
    )
    server.add_insecure_port(address)
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)


async def test_versions_only_grow_over_streams_that_break() -> None:
    service = Service(breaks(grpc.StatusCode.UNAVAILABLE, 0, 3), stays(1, 3, 4, 2, 5))
    address = free_address()
    seen: list[tuple[int, int]] = []

    async with (
        serving(service, address),
        CreditsClient(address) as client,
        contextlib.aclosing(client.watch_balance("ann")) as balances,
    ):
        async for balance in balances:
            seen.append((balance.version, balance.available_credits))
            if balance.version == 5:
                break

    assert seen == [(0, 0), (3, 30), (4, 40), (5, 50)]
    assert service.users == ["ann", "ann"]


async def test_leaving_the_loop_ends_the_stream_at_the_service() -> None:
    service = Service(stays(1))
    address = free_address()

    async with serving(service, address), CreditsClient(address) as client:
        async with contextlib.aclosing(client.watch_balance("ann")) as balances:
            await anext(balances)
        async with asyncio.timeout(2):
            await service.left.wait()

    assert len(service.users) == 1


async def test_a_service_that_stays_away_is_given_up() -> None:
    async with CreditsClient(free_address()) as client:
        with pytest.raises(Unavailable):
            await anext(client.watch_balance("ann", patience_s=0.5))


async def test_a_service_that_leaves_after_longer_than_the_patience_is_not_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = Service(breaks(grpc.StatusCode.UNAVAILABLE, 1), stays(2))
    address = free_address()
    # Every stream is a good one, and lasts longer than this patience.
    monkeypatch.setattr(watching, "STEADY_S", 0.0)

    async with (
        serving(service, address),
        CreditsClient(address) as client,
        contextlib.aclosing(client.watch_balance("ann", patience_s=0.0)) as balances,
    ):
        seen = [(await anext(balances)).version for _ in range(2)]

    assert seen == [1, 2]


async def test_a_refusal_is_not_watched_again() -> None:
    service = Service(breaks(grpc.StatusCode.NOT_FOUND))
    address = free_address()

    async with serving(service, address), CreditsClient(address) as client:
        with pytest.raises(NotFound, match="leaving"):
            await anext(client.watch_balance("ann"))

    assert len(service.users) == 1
