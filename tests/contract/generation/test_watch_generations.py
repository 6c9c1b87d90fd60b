"""WatchGenerations."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import timestamp_pb2
from reelworks.generation.v1 import generation_pb2

from services.generation.state import Stage
from services.runtime.errors import from_rpc_error
from tests.contract.generation.harness import Service, Status, lasting, violations
from tests.contract.generation.harness import Stage as WireStage
from tests.integration.generation.harness import (
    USER,
    attempt_of,
    body_of,
    generation_in,
)

LIMIT_S = 15.0


class Watching:
    """An open stream."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def next(self) -> Any:
        async with asyncio.timeout(LIMIT_S):
            message = await self._call.read()
        assert message is not grpc.aio.EOF
        return message.generation

    async def reaches(self, stage: int) -> list[Any]:
        """Messages up to the first in `stage`."""
        messages = [await self.next()]
        while messages[-1].stage != stage:
            messages.append(await self.next())
        return messages

    async def end(self) -> grpc.StatusCode:
        async with asyncio.timeout(LIMIT_S):
            code: grpc.StatusCode = await self._call.code()
        return code


@contextlib.asynccontextmanager
async def watching(service: Service, **fields: Any) -> AsyncIterator[Watching]:
    request = generation_pb2.WatchGenerationsRequest(**{"user_id": USER} | fields)
    call = service.stub.WatchGenerations(request, timeout=30)
    try:
        yield Watching(call)
    finally:
        call.cancel()


def moment(value: datetime) -> timestamp_pb2.Timestamp:
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromDatetime(value)
    return timestamp


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
async def test_first_comes_what_is_and_then_every_change_by_whomever(service: Service) -> None:
    first = await service.create()
    async with watching(service) as stream:
        assert lasting(await stream.next()) == lasting(first)

        second = await service.create()
        created = await stream.reaches(WireStage.STAGE_READY)
        assert created[-1] == second

        # A worker in another process goes on with the first; a webhook comes in here.
        await service.replica.claims.claim_ready(1, attempt_of)
        await service.deliver(
            webhook_id="msg",
            generation_id=first.generation_id,
            attempt=1,
            received_time=moment(datetime.now(UTC)),
            payload=body_of("job"),
        )
        changes = await stream.reaches(WireStage.STAGE_RUNNING)

        assert {change.generation_id for change in changes} == {first.generation_id}
        assert (changes[-1].job_id, changes[-1].status) == ("job", Status.PROCESSING)
        versions = [change.version for change in (first, *changes)]
        assert versions == sorted(set(versions))
        assert changes[-1] == await service.get(first.generation_id)


async def test_a_stream_with_nothing_to_say_says_that_it_is_there(service: Service) -> None:
    request = generation_pb2.WatchGenerationsRequest(user_id=USER)
    call = service.stub.WatchGenerations(request, timeout=30)
    try:
        async with asyncio.timeout(LIMIT_S):
            metadata = dict(await call.initial_metadata())

        assert metadata["reelworks-watching"] == "1"
        # From here on it misses nothing.
        created = await service.create()
        messages = await Watching(call).reaches(WireStage.STAGE_READY)
        assert messages[-1] == created
    finally:
        call.cancel()


async def test_what_a_stream_begins_with_can_be_chosen(service: Service) -> None:
    now = datetime.now(UTC)
    unfinished = generation_in(Stage.RUNNING, created_at=now - timedelta(hours=4))
    named = generation_in(Stage.FAILED, created_at=now - timedelta(hours=3))
    forgotten = generation_in(Stage.FAILED, created_at=now - timedelta(hours=2))
    updated = generation_in(Stage.FAILED, created_at=now - timedelta(minutes=1))
    # Within the overlap of ten seconds before the time that is given.
    just_before = generation_in(Stage.FAILED, created_at=now - timedelta(minutes=2, seconds=5))
    foreign = generation_in(Stage.RUNNING, user_id="bob")
    await service.replica.insert(unfinished, named, forgotten, updated, just_before, foreign)
    chosen = {
        "generation_ids": [named.generation_id, foreign.generation_id],
        "updated_after": moment(now - timedelta(minutes=2)),
    }

    async with watching(service) as plain, watching(service, **chosen) as wide:
        last = await service.create()
        seen: list[set[str]] = []
        for stream in (plain, wide):
            messages = await stream.reaches(WireStage.STAGE_READY)
            seen.append({message.generation_id for message in messages} - {last.generation_id})

    assert seen[0] == {unfinished.generation_id}
    assert seen[1] == {
        generation.generation_id for generation in (unfinished, named, updated, just_before)
    }


async def test_a_stream_may_begin_with_the_beginning_of_time(service: Service) -> None:
    ended = generation_in(Stage.FAILED, created_at=datetime.now(UTC) - timedelta(days=400))
    await service.replica.insert(ended)

    async with watching(service, updated_after=moment(datetime(1, 1, 1, tzinfo=UTC))) as stream:
        await service.create()
        messages = await stream.reaches(WireStage.STAGE_READY)

    assert ended.generation_id in {message.generation_id for message in messages}


async def test_what_is_known_can_be_had_alone_and_ends(service: Service) -> None:
    now = datetime.now(UTC)
    unfinished = generation_in(Stage.RUNNING, created_at=now - timedelta(hours=1))
    updated = generation_in(Stage.FAILED, created_at=now)
    forgotten = generation_in(Stage.FAILED, created_at=now - timedelta(hours=1))
    await service.replica.insert(unfinished, updated, forgotten)
    request = generation_pb2.WatchGenerationsRequest(
        user_id=USER, updated_after=moment(now - timedelta(minutes=1)), known_only=True
    )

    call = service.stub.WatchGenerations(request, timeout=LIMIT_S)

    assert [message.generation.generation_id async for message in call] == [
        unfinished.generation_id,
        updated.generation_id,
    ]
    assert await call.code() is grpc.StatusCode.OK


async def test_a_stream_ends_with_unavailable_when_the_service_stops(service: Service) -> None:
    await service.create()
    async with watching(service) as stream:
        await stream.next()

        service.stopping.set()

        assert await stream.end() is grpc.StatusCode.UNAVAILABLE


async def test_bad_fields_are_all_named(service: Service) -> None:
    request = generation_pb2.WatchGenerationsRequest(
        user_id="a b",
        generation_ids=["00000000-0000-4000-8000-000000000000", "fox"],
        updated_after=timestamp_pb2.Timestamp(seconds=2**60),
    )

    async def first() -> None:
        await _read(service.stub.WatchGenerations(request, timeout=LIMIT_S))

    reason, rules = await violations(first())

    assert reason == "INVALID_FIELD"
    assert rules == {
        "user_id": "must be 1 to 64 characters of A-Z a-z 0-9 _ -",
        "generation_ids[1]": "must be a UUID in lower case with hyphens",
        "updated_after": "must be a time between the years 1 and 9999",
    }


async def test_a_stream_ends_at_its_deadline(service: Service) -> None:
    request = generation_pb2.WatchGenerationsRequest(user_id=USER)

    call = service.stub.WatchGenerations(request, timeout=0.2)

    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def _read(call: Any) -> Any:
    try:
        return await call.read()
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
