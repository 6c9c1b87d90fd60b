"""WatchBalance."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from reelworks.credits.v1 import credits_pb2

from services.runtime.errors import from_rpc_error
from tests.contract.credits.conftest import Credits, bad_fields

LIMIT_S = 15.0
Type = credits_pb2.Transaction.Type


class Watching:
    """An open stream, and the versions that it has sent."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.versions: list[int] = []

    async def next(self) -> Any:
        async with asyncio.timeout(LIMIT_S):
            message = await self._call.read()
        assert message is not grpc.aio.EOF
        self.versions.append(message.balance.version)
        return message.balance

    async def reaches(self, version: int) -> Any:
        """The first balance of this version or a later one."""
        while True:
            balance = await self.next()
            if balance.version >= version:
                return balance

    async def end(self) -> grpc.StatusCode:
        async with asyncio.timeout(LIMIT_S):
            code: grpc.StatusCode = await self._call.code()
        return code


@contextlib.asynccontextmanager
async def watching(credits_service: Credits, user_id: str = "ada") -> AsyncIterator[Watching]:
    request = credits_pb2.WatchBalanceRequest(user_id=user_id)
    call = credits_service.stub.WatchBalance(request, timeout=30)
    try:
        yield Watching(call)
    finally:
        call.cancel()


async def add(credits_service: Credits, request_id: str, user_id: str = "ada") -> Any:
    return await credits_service.call(
        "AddCredits", user_id=user_id, type=Type.BONUS, credits=1, request_id=request_id
    )


async def test_first_comes_the_balance_as_it_is_and_then_every_change(
    credits_service: Credits,
) -> None:
    await credits_service.open()
    r = {"user_id": "ada", "reservation_id": "r"}
    async with watching(credits_service) as stream:
        first = await stream.next()
        seen = []
        for method, fields in (
            ("Reserve", {"credits": 30}),
            ("Commit", {"credits": 20}),
            ("Reimburse", {"credits": 5, "request_id": "q", "reason": "late"}),
        ):
            answer = await credits_service.call(method, **r, **fields)
            balance = await stream.next()
            assert balance == answer.balance
            seen.append((balance.available_credits, balance.reserved_credits))

    assert first.version == 1
    assert seen == [(70, 30), (80, 0), (85, 0)]
    assert stream.versions == [1, 2, 3, 4]


async def test_an_account_is_watched_before_it_is_opened(credits_service: Credits) -> None:
    async with watching(credits_service) as stream:
        first = await stream.next()
        await credits_service.open()
        second = await stream.next()

    assert first == credits_pb2.Balance(user_id="ada")
    assert (second.available_credits, second.version) == (100, 1)


async def test_under_load_versions_only_grow_and_the_last_one_comes(
    credits_service: Credits,
) -> None:
    await credits_service.open("ada")
    await credits_service.open("bob")
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(watching(credits_service)) for _ in range(5)]
        for stream in streams:
            await stream.next()
        readers = [asyncio.create_task(stream.reaches(301)) for stream in streams]
        for start in range(0, 300, 50):
            await asyncio.gather(
                *(
                    add(credits_service, f"q{number}", user)
                    for number in range(start, start + 50)
                    for user in ("ada", "bob")
                )
            )
        last = await asyncio.gather(*readers)

    truth = await credits_service.call("GetBalance", user_id="ada")
    assert truth.version == 301
    assert all(balance == truth for balance in last)
    for stream in streams:
        assert stream.versions == sorted(set(stream.versions))


async def test_a_repetition_and_a_refusal_are_no_change(credits_service: Credits) -> None:
    await credits_service.open()
    async with watching(credits_service) as stream:
        await stream.next()
        for request_id in ("q1", "q1", "q2"):
            await add(credits_service, request_id)
        with contextlib.suppress(Exception):
            await credits_service.call("Refund", user_id="ada", reservation_id="unknown")
        await stream.reaches(3)
        await add(credits_service, "q3")
        await stream.reaches(4)

    assert stream.versions == sorted(set(stream.versions))


async def test_a_stream_ends_at_its_deadline(credits_service: Credits) -> None:
    request = credits_pb2.WatchBalanceRequest(user_id="ada")

    call = credits_service.stub.WatchBalance(request, timeout=0.2)

    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_malformed_user_is_refused(credits_service: Credits) -> None:
    async def first() -> None:
        request = credits_pb2.WatchBalanceRequest(user_id="a b")
        try:
            await credits_service.stub.WatchBalance(request, timeout=LIMIT_S).read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    assert await bad_fields(first()) == {"user_id"}


async def test_a_stream_ends_with_unavailable_when_the_service_stops(
    credits_service: Credits,
) -> None:
    await credits_service.open()
    async with watching(credits_service) as stream:
        await stream.next()

        credits_service.leave.set()

        assert await stream.end() is grpc.StatusCode.UNAVAILABLE
