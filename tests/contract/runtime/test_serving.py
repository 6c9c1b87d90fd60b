"""A server comes, says how it is, and goes without losing a call."""

import asyncio
import time
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.runtime.channel import invoke
from services.runtime.server import ServerSettings
from services.runtime.settings import is_loopback
from tests.contract.runtime.conftest import NAME, Text, Toy, new_server, running_toy
from tests.serving import free_address

WAIT_S = 5.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_is_told_by_service(toy: Toy) -> None:
    health: Any = health_pb2_grpc.HealthStub(toy.channel)

    for name in ("", NAME):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=WAIT_S)
        assert answer.status == SERVING
    unknown = health.Check(health_pb2.HealthCheckRequest(service="unknown"), timeout=WAIT_S)
    assert await unknown.code() is grpc.StatusCode.NOT_FOUND


async def test_a_server_that_leaves_says_so_and_finishes_what_it_began() -> None:
    go_on = asyncio.Event()

    async def wait(_value: str, _context: Any) -> str:
        await go_on.wait()
        return "finished"

    async with (
        running_toy(drain_s=0.3) as toy,
        # A channel without health checks, as that of a caller that has not looked yet.
        grpc.aio.insecure_channel(toy.address) as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        before = await watch.read()
        toy.handler = wait
        begun = asyncio.ensure_future(invoke(toy.unary(channel), Text()))
        stream = toy.streaming(channel)(Text())
        await stream.read()
        toy.leave.set()
        after = await watch.read()
        toy.handler = None
        while_draining = await invoke(toy.unary(channel), Text(value="late"))
        await asyncio.wait_for(toy.stopping.wait(), WAIT_S)
        go_on.set()

        assert (before.status, after.status) == (SERVING, NOT_SERVING)
        assert while_draining.value == "heard late"
        assert (await asyncio.wait_for(begun, WAIT_S)).value == "finished"
        while await stream.read() is not grpc.aio.EOF:
            pass
        assert await watch.read() is grpc.aio.EOF


async def test_open_watches_and_streams_do_not_hold_a_server_that_leaves() -> None:
    async with running_toy(grace_s=10) as toy:
        channel = grpc.aio.insecure_channel(toy.address)
        health: Any = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        unknown = health.Watch(health_pb2.HealthCheckRequest(service="unknown"))
        stream = toy.streaming(channel)(Text())
        for open_stream in (watch, unknown, stream):
            await open_stream.read()
        began = time.monotonic()

    assert time.monotonic() - began < 5
    await channel.close()


async def test_two_servers_do_not_share_a_port(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    second = new_server(toy, asyncio.Event())

    with pytest.raises(SystemExit) as raised:
        await second.serve()

    assert raised.value.code == 2
    assert f"{toy.address} cannot be listened on" in capsys.readouterr().err


async def test_without_a_certificate_only_loopback_is_listened_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    toy = Toy("0.0.0.0:0")

    with pytest.raises(SystemExit) as raised:
        await new_server(toy, asyncio.Event()).serve()

    assert raised.value.code == 2
    assert "is not a loopback address" in capsys.readouterr().err
    assert [is_loopback(a) for a in ("127.0.0.2:1", "[::1]:1", "localhost:1", "unix:/x")] == [
        True
    ] * 4
    assert not is_loopback("127.example:1")
    assert not is_loopback("127.0.0.1.example:1")
    assert not is_loopback("10.0.0.1:1")


async def test_a_worker_that_fails_takes_its_server_along() -> None:
    async def fail() -> None:
        raise RuntimeError("the worker is broken")

    server = new_server(Toy(free_address()), asyncio.Event())

    with pytest.raises(RuntimeError, match="the worker is broken"):
        await asyncio.wait_for(server.serve(fail()), WAIT_S)


async def test_a_worker_that_does_not_end_is_canceled_after_the_grace() -> None:
    canceled = asyncio.Event()

    async def go_on() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            canceled.set()
            raise

    leave = asyncio.Event()
    leave.set()
    server = new_server(Toy(free_address()), leave, grace_s=0.1)

    await asyncio.wait_for(server.serve(go_on()), WAIT_S)

    assert canceled.is_set()


@pytest.mark.parametrize(("environment", "listed"), [("local", True), ("production", False)])
async def test_reflection_is_on_in_development_only(environment: str, listed: bool) -> None:
    async with running_toy(environment=environment) as toy:
        channel: Any = toy.channel  # Its types know channels of threads only.
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        call = stub.ServerReflectionInfo(iter([request]), timeout=WAIT_S)
        code = await call.code() if not listed else None
        answer = await call.read() if listed else reflection_pb2.ServerReflectionResponse()

    names = {service.name for service in answer.list_services_response.service}
    assert (NAME in names) is listed
    assert code is (None if listed else grpc.StatusCode.UNIMPLEMENTED)


def test_the_defaults_of_a_server_leave_time_for_balancers_and_for_calls() -> None:
    settings = ServerSettings(address="127.0.0.1:0")

    assert (settings.drain_s, settings.grace_s) == (5, 20)


async def test_a_connection_that_is_old_is_ended_and_its_calls_do_not_notice() -> None:
    async def tell_connection(_value: str, context: Any) -> str:
        return str(context.peer())

    async with running_toy(connection_age_s=0.2) as toy:
        toy.handler = tell_connection
        stream = toy.streaming()(Text())
        assert (await stream.read()).value == "first"
        connections = {(await stream.read()).value}
        async with asyncio.timeout(WAIT_S):
            while len(connections) < 3:
                connections.add((await invoke(toy.unary(), Text())).value)

        assert not stream.done()
        toy.stopping.set()
        assert await stream.read() is grpc.aio.EOF
