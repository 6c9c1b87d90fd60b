"""Probes hear whether a process has begun, is welcome to calls, and is alive."""

import asyncio
import threading
import time
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.credits.__main__ import serve
from services.credits.settings import CreditsSettings
from services.runtime import health
from services.runtime.database import open_database
from services.runtime.errors import Unavailable
from tests.certificates import Authority
from tests.conftest import NewDatabase
from tests.contract.runtime.conftest import NAME, Text, Toy, new_server, running_toy
from tests.serving import free_address, serving

WAIT_S = 10.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def probe(address: str, name: str) -> Any:
    """Asks as Kubernetes does; to be called in a thread."""
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        return stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=WAIT_S).status


async def probed(address: str) -> dict[str, bool]:
    names = ("startup", "ready", "live")
    answers = await asyncio.gather(*(asyncio.to_thread(probe, address, name) for name in names))
    return {name: answer == SERVING for name, answer in zip(names, answers, strict=True)}


async def becomes(address: str, expected: dict[str, bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while (found := await probed(address)) != expected:  # noqa: ASYNC110  Probes have no events.
            await asyncio.sleep(0.05)
    assert found == expected


async def test_probes_are_answered_in_plaintext_beside_a_server_with_certificates(
    tmp_path: Any,
) -> None:
    authority, address = Authority(), free_address()
    own = authority.files(tmp_path, "toy")
    async with running_toy(
        certificates=authority.files(tmp_path, "web").read(),
        health_address=address,
        **own.settings,
    ) as toy:
        assert await probed(address) == {"startup": True, "ready": True, "live": True}
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            listed = await stub.List(health_pb2.HealthListRequest())  # type: ignore[attr-defined]
            unknown = stub.Check(health_pb2.HealthCheckRequest(service="unknown"))
            watch = stub.Watch(health_pb2.HealthCheckRequest())

            assert set(listed.statuses) == {"", NAME, "startup", "ready", "live"}
            assert await unknown.code() is grpc.StatusCode.NOT_FOUND
            assert await watch.code() is grpc.StatusCode.UNIMPLEMENTED
            # Nothing of the product is there.
            assert await toy.unary(channel)(Text()).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_process_that_leaves_is_alive_but_not_ready() -> None:
    address = free_address()
    async with running_toy(health_address=address, drain_s=2) as toy:
        toy.leave.set()
        await becomes(address, {"startup": True, "ready": False, "live": True})


@pytest.mark.parametrize("problem", ["away", "old", "broken", "silent"])
async def test_without_its_database_a_process_is_not_ready_until_it_is_back(
    problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("GOOD_S", 0.2), ("EXAMINED_S", 0.01), ("EXAMINE_S_MAX", 0.1)):
        monkeypatch.setattr(health, name, seconds)
    present = ""

    async def examine() -> str | None:
        match present:
            case "away":
                raise Unavailable("DATABASE_UNAVAILABLE", "It is away.")
            case "old":
                return "the schema is old"
            case "broken":
                raise RuntimeError("permission denied")
            case "silent":
                await asyncio.sleep(60)
        return None

    address = free_address()
    async with running_toy(health_address=address, examine=examine):
        await becomes(address, {"startup": True, "ready": True, "live": True})
        present = problem
        await becomes(address, {"startup": True, "ready": False, "live": True})
        present = ""
        await becomes(address, {"startup": True, "ready": True, "live": True})


async def test_a_database_that_is_slow_for_a_moment_makes_nobody_unready() -> None:
    asked = 0

    async def examine() -> str | None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise Unavailable("DATABASE_UNAVAILABLE", "No connection is free.")
        return None

    known = health.Health([], examine)
    known.start()
    try:
        assert await known.is_good("ready")
        known._examined_at = float("-inf")
        assert await known.is_good("ready")
        assert asked == 2
        assert all([await known.is_good("ready") for _ in range(100)])
        assert asked == 2, "it is asked at most once a second"
    finally:
        known.end()


async def test_a_database_that_hangs_makes_nobody_unready_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "GOOD_S", 2.0)
    monkeypatch.setattr(health, "EXAMINE_S_MAX", 0.1)
    hung, closed = asyncio.Event(), asyncio.Event()
    hangs = False

    async def examine() -> str | None:
        try:
            if hangs:
                hung.set()
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            # As a connection that does not answer takes its time to be closed.
            await closed.wait()
            raise
        return None

    address = free_address()
    async with running_toy(health_address=address, examine=examine):
        await becomes(address, {"startup": True, "ready": True, "live": True})
        good_since = time.monotonic()
        monkeypatch.setattr(health, "EXAMINED_S", 0.01)
        hangs = True
        answers: list[bool] = []
        while not hung.is_set():
            answers.append((await probed(address))["ready"])
        answered_after_s = time.monotonic() - good_since
        await becomes(address, {"startup": True, "ready": False, "live": True})
        hangs = False
        closed.set()
        await becomes(address, {"startup": True, "ready": True, "live": True})

    assert answered_after_s < health.GOOD_S, "else the answer tells nothing"
    assert all(answers)


async def test_a_process_whose_loop_hangs_says_so_and_only_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "TURN_S_MAX", 1.5)
    monkeypatch.setattr(health, "PULSE_S", 0.1)
    heard: list[Any] = []
    address = free_address()

    def watch() -> None:
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            heard.append(probe(address, "live"))
            if heard[-1] == NOT_SERVING:
                return

    async with running_toy(health_address=address):
        thread = threading.Thread(target=watch)
        thread.start()
        thread.join()  # The loop hangs until the thread has heard of it.

        assert heard[0] == SERVING
        assert heard[-1] == NOT_SERVING
        await becomes(address, {"startup": True, "ready": True, "live": True})


def test_without_being_told_otherwise_a_loop_may_hang_for_half_a_minute() -> None:
    assert (health.TURN_S_MAX, health.GOOD_S) == (30, 10)


async def test_an_address_that_is_taken_is_named(
    toy: Toy, capsys: pytest.CaptureFixture[str]
) -> None:
    taken: dict[str, Any] = {"address": free_address(), "health_address": toy.address}
    with pytest.raises(SystemExit) as raised:
        await new_server(toy, asyncio.Event(), **taken).serve()

    assert raised.value.code == 2
    expected = f"REELWORKS_HEALTH_ADDRESS: {toy.address} cannot be listened on"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("backend", ["postgresql"])  # A file is nobody else's to change.
@pytest.mark.parametrize(("revision", "ready"), [("0001", False), ("9999_of_a_newer", True)])
async def test_an_old_schema_makes_a_service_unready_and_a_newer_one_does_not(
    revision: str, ready: bool, new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "EXAMINED_S", 0.01)
    url, address, probes = new_database("credits"), free_address(), free_address()
    settings = CreditsSettings(
        address=address, health_address=probes, database_url=url, drain_s=0, grace_s=2
    )
    async with serving(lambda leave: serve(settings, leave), address):
        assert (await probed(probes))["ready"]
        database = open_database(url)
        async with database.write() as connection:
            await connection.exec_driver_sql(
                f"UPDATE credits_schema_version SET version_num = '{revision}'"
            )
        await database.close()
        await becomes(probes, {"startup": True, "ready": ready, "live": True})
