"""What happens to a call between a caller and a handler."""

import asyncio
import time
from typing import Any, NoReturn

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from services.runtime.channel import connect, invoke
from services.runtime.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    Overloaded,
    PreconditionFailed,
    ServiceFailed,
    Unavailable,
)
from services.runtime.identity import _is_local
from tests.contract.runtime.conftest import DOMAIN, NAME, Text, Toy, running_toy
from tests.serving import free_address

WAIT_S = 5.0


def retry_delay_s(error: grpc.aio.AioRpcError) -> float:
    """Returns when to come back, as the error says."""
    retry_info = error_details_pb2.RetryInfo()
    status: Any = rpc_status.from_call(error)  # type: ignore[arg-type]
    assert any(detail.Unpack(retry_info) for detail in status.details)
    seconds: float = retry_info.retry_delay.ToTimedelta().total_seconds()
    return seconds


async def test_an_error_arrives_as_it_was_raised_with_the_domain_of_its_service(toy: Toy) -> None:
    async def refuse(_value: str, _context: Any) -> NoReturn:
        raise PreconditionFailed("NO_MORE", "There is no more.", left=0)

    toy.handler = refuse

    with pytest.raises(PreconditionFailed) as raised:
        await invoke(toy.unary(), Text(value="x"))
    with pytest.raises(grpc.aio.AioRpcError) as bare:
        await toy.unary()(Text(value="x"))

    assert (raised.value.reason, raised.value.metadata) == ("NO_MORE", {"left": "0"})
    info = error_details_pb2.ErrorInfo()
    status: Any = rpc_status.from_call(bare.value)  # type: ignore[arg-type]
    assert status.details[0].Unpack(info)
    assert info.domain == DOMAIN


async def test_a_large_request_is_refused_unseen_unless_its_method_takes_it(toy: Toy) -> None:
    small, large = Text(value="x" * 60_000), Text(value="x" * 70_000)

    with pytest.raises(InvalidRequest) as raised:
        await invoke(toy.unary(), large)
    with pytest.raises(grpc.aio.AioRpcError) as streamed:
        await toy.streaming()(large).read()
    assert toy.asked == 0
    assert raised.value.message == f"request must have at most 65536 bytes, has {large.ByteSize()}"
    assert streamed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await invoke(toy.unary(), small)
    async with running_toy(request_bytes_max={f"/{NAME}/Ask": 100_000}) as patient:
        await invoke(patient.unary(), large)
        assert patient.asked == 1


async def test_a_defect_tells_callers_nothing(toy: Toy) -> None:
    async def fail(_value: str, _context: Any) -> NoReturn:
        raise RuntimeError("the password is xyzzy")

    toy.handler = fail

    with pytest.raises(ServiceFailed) as raised:
        await invoke(toy.unary(), Text(value="x"))

    assert raised.value.reason == "INTERNAL_FAILURE"
    assert "xyzzy" not in str(raised.value)


async def test_a_long_error_keeps_its_status(toy: Toy) -> None:
    async def fail(_value: str, _context: Any) -> NoReturn:
        raise NotFound("GONE", "x" * 100_000, key="y" * 100_000)

    toy.handler = fail

    with pytest.raises(NotFound) as raised:
        await invoke(toy.unary(), Text(value="x"))

    assert len(raised.value.message) == 1000
    assert len(raised.value.metadata["key"]) == 256


async def test_a_task_that_somebody_else_canceled_is_answered_as_a_defect(toy: Toy) -> None:
    async def await_canceled_task(_value: str, _context: Any) -> str:
        task = asyncio.create_task(asyncio.sleep(60))
        asyncio.get_running_loop().call_later(0.01, task.cancel)
        await task
        return "never"

    toy.handler = await_canceled_task

    with pytest.raises(ServiceFailed):
        await asyncio.wait_for(invoke(toy.unary(), Text(value="x")), WAIT_S)
    stream = toy.streaming()(Text(value="x"))
    assert (await stream.read()).value == "first"
    assert await asyncio.wait_for(stream.code(), WAIT_S) is grpc.StatusCode.INTERNAL


async def test_a_handler_learns_at_once_that_its_caller_left(toy: Toy) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def wait(_value: str, _context: Any) -> str:
        began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.set()
            raise
        return "never"

    toy.handler = wait
    call = toy.unary()(Text(value="x"))
    await asyncio.wait_for(began.wait(), WAIT_S)
    call.cancel()

    await asyncio.wait_for(ended.wait(), WAIT_S)


async def test_malformed_requests_do_not_reach_the_handler(toy: Toy) -> None:
    with pytest.raises(InvalidRequest):
        await invoke(toy.unary(), Text(value="malformed"))
    stream = toy.streaming()(Text(value="malformed"))

    assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert toy.asked == 0


async def test_every_call_has_a_deadline_by_its_method(toy: Toy) -> None:
    async def tell_time(_value: str, context: Any) -> str:
        return str(context.time_remaining())

    toy.handler = tell_time
    channel = connect(toy.address, {"Ask": 2.0})

    by_default = float((await toy.unary()(Text())).value)
    by_method = float((await toy.unary(channel)(Text())).value)
    by_caller = float((await toy.unary(channel)(Text(), timeout=9)).value)
    await channel.close()

    # gRPC rounds what remains.
    assert 4 < by_default < 5.1
    assert 1 < by_method < 2.1
    assert 8 < by_caller < 9.1


async def test_a_call_made_while_another_is_answered_never_outlasts_it(toy: Toy) -> None:
    async def ask_further(value: str, context: Any) -> str:
        if value == "inner":
            return str(context.time_remaining())
        outer_s = context.time_remaining()
        inner = await invoke(toy.unary(), Text(value="inner"))
        return str(outer_s - float(inner.value))

    toy.handler = ask_further

    # gRPC tells a server more than a second in coarse steps only.
    margin_s = float((await toy.unary()(Text(value="outer"), timeout=0.9)).value)

    assert 0.03 < margin_s < 0.5


async def test_without_time_left_no_call_is_made(toy: Toy) -> None:
    async def ask_further(_value: str, context: Any) -> str:
        await asyncio.sleep(context.time_remaining() - 0.045)
        with pytest.raises(DeadlineExceeded):
            await invoke(toy.unary(), Text(value="inner"))
        return "refused at home"

    toy.handler = ask_further

    # The answer may come too late; that no second call arrived is what counts.
    await asyncio.wait([asyncio.ensure_future(toy.unary()(Text(value="outer"), timeout=0.3))])

    assert toy.asked == 1


async def test_only_what_is_unavailable_is_tried_again(toy: Toy) -> None:
    kinds = {"away": Unavailable, "gone": NotFound}

    async def fail_twice(value: str, _context: Any) -> str:
        if toy.asked <= 2:
            raise kinds[value]("SOME_REASON", "Not now.")
        return "at last"

    toy.handler = fail_twice

    answer = await invoke(toy.unary(), Text(value="away"))
    assert (answer.value, toy.asked) == ("at last", 3)
    toy.asked = 0
    with pytest.raises(NotFound):
        await invoke(toy.unary(), Text(value="gone"))
    assert toy.asked == 1


async def test_a_call_that_a_server_canceled_is_repeated_once(toy: Toy) -> None:
    async def cancel_first(value: str, context: Any) -> str:
        if toy.asked == 1 or value == "always":
            await context.abort(grpc.StatusCode.CANCELLED, "the server is stopping")
        return "at last"

    toy.handler = cancel_first

    answer = await invoke(toy.unary(), Text(value="once"))
    assert (answer.value, toy.asked) == ("at last", 2)
    with pytest.raises(Unavailable):
        await invoke(toy.unary(), Text(value="always"))
    assert toy.asked == 4


async def test_above_its_limits_a_server_refuses_calls_but_not_the_health_check() -> None:
    async with running_toy(calls_max=1, streams_max=1) as toy:
        go_on = asyncio.Event()

        async def wait(_value: str, _context: Any) -> str:
            await go_on.wait()
            return "done"

        toy.handler = wait
        first = asyncio.ensure_future(invoke(toy.unary(), Text(value="x")))
        stream = toy.streaming()(Text(value="x"))
        assert (await stream.read()).value == "first"
        with pytest.raises(Overloaded) as raised:
            await invoke(toy.unary(), Text(value="x"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await toy.unary()(Text(value="x"))
        refused_stream = toy.streaming()(Text(value="x"))
        health: Any = health_pb2_grpc.HealthStub(toy.channel)
        alive = await health.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S)
        go_on.set()

        assert raised.value.reason == "SERVICE_OVERLOADED"
        assert raised.value.retry_after_s == 1.0
        assert retry_delay_s(refused.value) == 1.0
        assert await refused_stream.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert alive.status == health_pb2.HealthCheckResponse.SERVING
        assert (await first).value == "done"
        stream.cancel()
        assert (await invoke(toy.unary(), Text(value="x"))).value == "done"


async def test_a_service_that_does_not_answer_is_unavailable_within_the_deadline() -> None:
    channel = connect(free_address(), {"Ask": 2.0})
    began = time.monotonic()
    with pytest.raises((Unavailable, DeadlineExceeded)):
        await invoke(Toy(free_address()).unary(channel), Text())
    await channel.close()

    assert time.monotonic() - began < 4


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        ("ipv4:127.0.0.1:4711", True),
        ("ipv6:[::1]:4711", True),
        ("ipv6:%5B::1%5D:4711", True),
        ("unix:", True),
        ("ipv4:10.1.2.3:4711", False),
        ("ipv6:[2001:db8::1]:4711", False),
        ("somewhere", False),
    ],
)
def test_in_plaintext_only_this_machine_is_answered(peer: str, local: bool) -> None:
    assert _is_local(peer) is local
