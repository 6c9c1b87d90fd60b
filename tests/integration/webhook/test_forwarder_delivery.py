import asyncio
import uuid
from typing import Any

import grpc
import pytest

from services.runtime.database import Database
from services.webhook.forwarder import Timing
from services.webhook.inbox import Settlement
from services.webhook.tables import State
from tests.integration.webhook.harness import (
    Disposition,
    FakeGeneration,
    eventually,
    forwarding,
    free_port,
    opened,
    opened_inbox,
    received,
    rows,
    serving,
)

QUICK = Timing(lease_s=10, tick_s=0.05, retry_s=0.01)
GENERATION = str(uuid.uuid4())


async def states(database: Database) -> set[str]:
    return {row["state"] for row in await rows(database)}


async def all_delivered(database: Database) -> bool:
    return await states(database) == {"DELIVERED"}


async def test_an_event_is_handed_on_as_it_was_received(url: str) -> None:
    generation = FakeGeneration()
    async with (
        opened(url) as database,
        serving(generation) as port,
        forwarding(database, port, Timing()) as replica,
    ):
        event = received("msg_1", b"\xff{", GENERATION, 3)
        await replica.inbox.store(event)
        await eventually(lambda: all_delivered(database))

    (request,) = generation.requests
    assert (request.webhook_id, request.generation_id, request.attempt, request.payload) == (
        "msg_1",
        GENERATION,
        3,
        b"\xff{",
    )
    assert request.received_time.ToDatetime() == event.received_at.replace(tzinfo=None)


async def test_an_unproven_address_is_handed_on_empty(url: str) -> None:
    generation = FakeGeneration()
    async with (
        opened(url) as database,
        serving(generation) as port,
        forwarding(database, port, QUICK) as replica,
    ):
        await replica.inbox.store(received())
        await eventually(lambda: all_delivered(database))

    assert [(request.generation_id, request.attempt) for request in generation.requests] == [
        ("", 0)
    ]


async def test_the_largest_body_is_handed_on(url: str) -> None:
    generation = FakeGeneration()
    async with (
        opened(url) as database,
        serving(generation) as port,
        forwarding(database, port, QUICK) as replica,
    ):
        await replica.inbox.store(received("x" * 256, b"x" * 8 * 1024 * 1024, GENERATION, 999))
        await eventually(lambda: all_delivered(database))


async def test_every_answer_has_its_consequence(url: str) -> None:
    answers: dict[str, Any] = {
        **{name: getattr(Disposition, name) for name in Disposition.keys()},  # noqa: SIM118
        # UNAVAILABLE would slow the others down; it has tests of its own.
        **{code.name: code for code in grpc.StatusCode if code.name not in ("OK", "UNAVAILABLE")},
    }

    async def reply(request: Any, times: int) -> Any:
        del times
        return answers[request.webhook_id]

    async with (
        opened(url) as database,
        serving(FakeGeneration(reply)) as port,
        forwarding(database, port, Timing(tick_s=0.05, retry_s=100)) as replica,
    ):
        await asyncio.gather(*(replica.inbox.store(received(name)) for name in answers))

        async def all_answered() -> dict[str, Any]:
            found = {row["webhook_id"]: row for row in await rows(database)}
            done = all(row["last_error"] or row["disposition"] for row in found.values())
            return found if done else {}

        found = await eventually(all_answered)

    for name in Disposition.keys():  # noqa: SIM118
        expected = "DEAD" if name == "UNREADABLE" else "DELIVERED"
        assert (found[name]["state"], found[name]["disposition"]) == (expected, name)
    counted = {"INVALID_ARGUMENT", "OUT_OF_RANGE", "FAILED_PRECONDITION", "INTERNAL", "UNKNOWN"}
    for code in grpc.StatusCode:
        if code.name in ("OK", "UNAVAILABLE"):
            continue
        row = found[code.name]
        assert (row["state"], row["refusals"]) == ("PENDING", int(code.name in counted))
        assert row["last_error"].startswith(f"{code.name}: ")
        assert (row["due_at"] - row["stored_at"]).total_seconds() > 20


async def test_a_poisoned_event_dies_and_never_blocks_the_others(url: str) -> None:
    async def reply(request: Any, times: int) -> Any:
        del times
        poisoned = request.webhook_id == "poison"
        return grpc.StatusCode.INVALID_ARGUMENT if poisoned else Disposition.APPLIED

    generation = FakeGeneration(reply)
    async with (
        opened(url) as database,
        serving(generation) as port,
        forwarding(database, port, QUICK) as replica,
    ):
        await replica.inbox.store(received("poison"))
        for _ in range(20):
            await replica.inbox.store(received())
        await eventually(lambda: _settled(database))

        dead = [row for row in await rows(database) if row["state"] == "DEAD"]
        assert [(row["webhook_id"], row["tries"], row["refusals"]) for row in dead] == [
            ("poison", 5, 5)
        ]
        assert sum(generation.calls.values()) == 25


async def _settled(database: Database) -> bool:
    return "PENDING" not in await states(database)


async def test_events_wait_for_an_absent_generation_and_are_delivered_once_it_is_there(
    url: str,
) -> None:
    port = free_port()
    generation = FakeGeneration()
    async with opened(url) as database, forwarding(database, port, QUICK) as replica:
        for _ in range(40):
            await replica.inbox.store(received())
        await eventually(lambda: _was_tried(database))
        assert await states(database) == {"PENDING"}

        async with serving(generation, port):
            await eventually(lambda: all_delivered(database))

    assert list(generation.calls.values()) == [1] * 40


async def test_what_was_tried_in_an_outage_is_delivered_soon_after_it(
    url: str,
) -> None:
    port = free_port()
    generation = FakeGeneration()
    # Whoever was tried once waits for longer than this test may take.
    timing = Timing(lease_s=100, tick_s=0.02, retry_s=1000)
    async with opened(url) as database, forwarding(database, port, timing) as replica:
        for _ in range(5):
            await replica.inbox.store(received())
        await eventually(lambda: _all_tried(database))

        async with serving(generation, port):
            await eventually(lambda: all_delivered(database))

    assert list(generation.calls.values()) == [1] * 5


async def _all_tried(database: Database) -> bool:
    return all(row["last_error"] for row in await rows(database))


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_an_outage_releases_no_event_that_generation_itself_refuses(url: str) -> None:
    async with opened(url) as database, opened_inbox(database) as box:
        for name in ("away", "refused", "leased"):
            await box.store(received(name))
        away, refused, leased = await box.claim(3, 100)
        error: dict[str, Any] = {"delay_s": 100.0, "error": "X"}
        await box.settle(Settlement(away.sequence, away.lease_ends_at, State.PENDING, **error))
        await box.settle(
            Settlement(
                refused.sequence, refused.lease_ends_at, State.PENDING, refused=True, **error
            )
        )

        await box.release_paused()
        assert [event.webhook_id for event in await box.claim(3, 100)] == ["away"]

        # A process that is the only one knows that what is leased when it starts is nobody's.
        await box.drop_leases()
        again = [event.webhook_id for event in await box.claim(3, 100)]
        assert again == ["away", leased.webhook_id]


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_where_others_may_deliver_leases_are_not_dropped(url: str) -> None:
    async with opened(url) as database, opened_inbox(database) as box:
        await box.store(received())
        assert await box.claim(1, 100)

        await box.drop_leases()

        assert await box.claim(1, 100) == []


async def _was_tried(database: Database) -> bool:
    return any(row["last_error"].startswith("UNAVAILABLE") for row in await rows(database))


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_generation_that_is_unavailable_is_probed_by_one_call_at_a_time(url: str) -> None:
    is_back = asyncio.Event()

    async def reply(request: Any, times: int) -> Any:
        del request, times
        await asyncio.sleep(0.01)  # So that calls at once would be seen.
        return Disposition.APPLIED if is_back.is_set() else grpc.StatusCode.UNAVAILABLE

    generation = FakeGeneration(reply)
    async with (
        opened(url) as database,
        serving(generation) as port,
        forwarding(database, port, QUICK) as replica,
    ):
        await asyncio.gather(*(replica.inbox.store(received()) for _ in range(60)))
        await eventually(lambda: replica.forwarder._away and not replica.forwarder._calls_in_flight)
        generation.in_flight_most, calls = 0, sum(generation.calls.values())
        await eventually(lambda: sum(generation.calls.values()) > calls + 5)
        assert generation.in_flight_most == 1

        is_back.set()
        await eventually(lambda: all_delivered(database))
        assert generation.in_flight_most > 1


async def test_calls_in_flight_are_bounded(url: str) -> None:
    async def reply(request: Any, times: int) -> Any:
        del request, times
        await asyncio.sleep(0.02)
        return Disposition.APPLIED

    generation = FakeGeneration(reply)
    async with (
        opened(url) as database,
        serving(generation) as port,
        forwarding(database, port, Timing(calls_max=4)) as replica,
    ):
        await asyncio.gather(*(replica.inbox.store(received()) for _ in range(30)))
        await eventually(lambda: all_delivered(database))

    assert generation.in_flight_most == 4
    assert list(generation.calls.values()) == [1] * 30


async def test_a_forwarder_killed_before_it_settled_is_made_good_by_another(url: str) -> None:
    async def reply(request: Any, times: int) -> Any:
        del request
        if times == 1:
            await asyncio.Event().wait()
        return Disposition.DUPLICATE

    generation = FakeGeneration(reply)
    # Longer than a call takes where much else runs, or it would be made a third time.
    timing = Timing(lease_s=3, tick_s=0.05)
    async with opened(url) as database, serving(generation) as port:
        async with forwarding(database, port, timing) as killed:
            await killed.inbox.store(received())
            await eventually(lambda: generation.calls)
        assert await states(database) == {"PENDING"}

        async with forwarding(database, port, timing):
            await eventually(lambda: all_delivered(database))

        (row,) = await rows(database)
    assert (row["tries"], row["disposition"]) == (2, "DUPLICATE")
    assert list(generation.calls.values()) == [2]


@pytest.mark.parametrize("backend", ["postgresql"])
async def test_replicas_share_the_work_and_each_event_is_delivered_once(url: str) -> None:
    async def reply(request: Any, times: int) -> Any:
        del request, times
        await asyncio.sleep(0.005)
        return Disposition.APPLIED

    to_first, to_second = FakeGeneration(reply), FakeGeneration(reply)
    async with (
        opened(url) as one,
        opened(url) as other,
        serving(to_first) as first_port,
        serving(to_second) as second_port,
        forwarding(one, first_port, QUICK) as first,
        forwarding(other, second_port, QUICK) as second,
    ):
        events = [received() for _ in range(300)]
        await asyncio.gather(
            *(first.inbox.store(event) for event in events),
            *(second.inbox.store(event) for event in events),
        )
        await eventually(lambda: all_delivered(one))

    calls = to_first.calls + to_second.calls
    assert len(calls) == sum(calls.values()) == 300
    assert len(to_first.calls) > 30
    assert len(to_second.calls) > 30


async def test_stopping_waits_for_calls_in_flight_and_begins_no_more(url: str) -> None:
    go_on = asyncio.Event()

    async def reply(request: Any, times: int) -> Any:
        del request, times
        await go_on.wait()
        return Disposition.APPLIED

    generation = FakeGeneration(reply)
    async with (
        opened(url) as database,
        serving(generation) as port,
        forwarding(database, port, QUICK) as replica,
    ):
        await replica.inbox.store(received("first"))
        await eventually(lambda: generation.calls)
        replica.forwarder.stop()
        await replica.inbox.store(received("second"))
        go_on.set()
        await replica.delivering

        assert {row["webhook_id"]: row["state"] for row in await rows(database)} == {
            "first": "DELIVERED",
            "second": "PENDING",
        }
