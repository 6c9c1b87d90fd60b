import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
import svix
from aiohttp import ClientSession

from services.simulator.client import SimulatorControl
from services.simulator.renderer import Renderer
from services.simulator.server import run_simulator
from services.simulator.settings import SimulatorSettings
from tests.integration.simulator.harness import Receiver, Running, Start, eventually

QUERY = "?g=01890a5d-ac96-774b-bcce-b302099a8057&a=1&k=a%2Fb+c%20d&empty=&&=x"


async def settled(running: Running, prediction_id: str) -> list[dict[str, object]]:
    """Returns the attempts on record once nothing more will be sent."""

    async def answer() -> list[dict[str, object]] | None:
        truth = await running.truth(prediction_id)
        return list(truth["attempts"]) if truth["settled"] else None

    return await eventually(answer)


async def test_each_is_signed_and_arrives_where_it_was_aimed(
    start: Start, receiver: Receiver
) -> None:
    running = await start()
    _, secret = await running.call("GET", "/webhooks/default/secret")
    created = await running.create(webhook=f"{receiver.address}/hook{QUERY}")

    events = await receiver.gets(3)

    for one in events:
        assert one.path == f"/hook{QUERY}"
        assert one.headers["content-type"] == "application/json"
        standardwebhooks.Webhook(secret["key"]).verify(one.body, one.headers)
        svix.Webhook(secret["key"]).verify(one.body, one.headers)
    bodies = [json.loads(one.body) for one in events]
    assert {body["id"] for body in bodies} == {created["id"]}
    # Sent at once, so the last two may overtake each other.
    assert [body["status"] for body in bodies] == ["processing", "succeeded", "succeeded"]
    assert len({one.id for one in events}) == 3
    assert all(one.id.startswith("msg_") and len(one.id) == 31 for one in events)
    assert bodies[-1] == await running.get(created["id"])


@pytest.mark.parametrize(
    ("chosen", "events"),
    [
        (None, ["start", "output", "completed"]),
        (["completed"], ["start", "completed"]),
        (["start", "completed"], ["start", "completed"]),
        (["output"], ["start", "output", "completed"]),
    ],
)
async def test_the_filter_chooses_but_start_and_completed_always_come(
    start: Start, receiver: Receiver, chosen: list[str] | None, events: list[str]
) -> None:
    running = await start()
    more: dict[str, Any] = {} if chosen is None else {"webhook_events_filter": chosen}
    created = await running.create(webhook=f"{receiver.address}/hook", **more)

    await running.reaches(created["id"], "succeeded")
    await receiver.gets(len(events))
    attempts = await settled(running, created["id"])

    assert sorted(str(one["event"]) for one in attempts) == sorted(events)


async def test_logs_come_at_most_twice_a_second(start: Start, receiver: Receiver) -> None:
    running = await start(speed=15.0)
    created = await running.create(
        webhook=f"{receiver.address}/hook", webhook_events_filter=["logs"]
    )

    await running.reaches(created["id"], "succeeded")
    attempts = await settled(running, created["id"])

    times = [float(str(one["at"])) for one in attempts if one["event"] == "logs"]
    assert len(times) >= 2
    assert all(later - earlier >= 0.45 for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize("failure", [500, 503, 404, 400])
async def test_a_refused_completion_is_repeated_with_the_same_id(
    start: Start, receiver: Receiver, failure: int
) -> None:
    running = await start()
    receiver.answers = [failure] * 3
    created = await running.create(
        "a lake [fail]", webhook=f"{receiver.address}/hook", webhook_events_filter=["completed"]
    )

    await receiver.gets(4)
    attempts = await settled(running, created["id"])

    # The start event takes the first failure and is not repeated.
    assert [(one["event"], one["status"]) for one in attempts] == [
        ("start", failure),
        ("completed", failure),
        ("completed", failure),
        ("completed", 200),
    ]
    assert len({one["webhook_id"] for one in attempts[1:]}) == 1
    assert len({one.body for one in receiver.received[1:]}) == 1


async def test_repetitions_end_after_about_a_minute(start: Start, receiver: Receiver) -> None:
    running = await start(speed=200.0)
    receiver.answers = [500] * 100
    created = await running.create("a lake [fail]", webhook=f"{receiver.address}/hook")

    attempts = await settled(running, created["id"])

    times = [float(str(one["at"])) for one in attempts if one["event"] == "completed"]
    offsets = [(at - times[0]) * 200 for at in times[1:]]
    assert len(offsets) == 6
    # At this speed a millisecond of the machine is a fifth of a second.
    assert all(
        planned <= offset < planned + 20
        for planned, offset in zip((1, 3, 7, 15, 31, 60), offsets, strict=True)
    )


async def test_a_redirect_is_neither_followed_nor_repeated(
    start: Start, receiver: Receiver
) -> None:
    running = await start()
    receiver.answers = [302, 302]
    created = await running.create("a lake [fail]", webhook=f"{receiver.address}/hook")

    attempts = await settled(running, created["id"])

    assert [one["status"] for one in attempts] == [302, 302]
    assert [one.path for one in receiver.received] == ["/hook", "/hook"]


async def test_a_dead_receiver_does_not_delay_the_api(start: Start) -> None:
    running = await start()
    created = await running.create("a lake [fail]", webhook="http://127.0.0.1:1/hook")

    await running.reaches(created["id"], "failed")
    attempts = await settled(running, created["id"])

    assert len(attempts) == 8
    assert all(one["status"] is None and one["failure"] for one in attempts)


async def test_nothing_goes_to_a_host_that_is_not_allowed(start: Start) -> None:
    running = await start()
    created = await running.create("a lake [fail]", webhook="https://example.org/hook")

    attempts = await settled(running, created["id"])

    assert {one["failure"] for one in attempts} == {"host example.org is not allowed"}


@pytest.mark.parametrize("marker", ["[nowebhook]", "[abort]"])
async def test_silent_and_aborted_predictions_send_nothing(
    start: Start, receiver: Receiver, marker: str
) -> None:
    running = await start()
    hook = f"{receiver.address}/hook"
    silent = await running.create(f"a lake {marker}", webhook=hook)
    await running.reaches(silent["id"], "succeeded", "aborted")

    await running.create("a lake [fail]", webhook=hook)
    events = await receiver.gets(2)

    assert silent["id"] not in {json.loads(one.body)["id"] for one in events}
    assert (await running.truth(silent["id"]))["attempts"] == []


async def test_a_delivery_that_a_restart_cut_off_goes_on(
    renderer: Renderer, receiver: Receiver, tmp_path: Path
) -> None:
    settings = SimulatorSettings(
        api_port=0, delivery_port=0, control_port=0, speed=100.0, data=tmp_path
    )
    receiver.answers = [500] * 3
    async with ClientSession() as session:
        async with (
            run_simulator(settings, renderer) as addresses,
            SimulatorControl(addresses.control) as control,
        ):
            running = Running(addresses, session, settings.tokens[0], control)
            done = await running.create("a lake [fail]", webhook=f"{receiver.address}/hook")
            # The start, the completion, and its first repetition; the next would take longer.
            await receiver.gets(3)
        async with (
            run_simulator(settings, renderer) as addresses,
            SimulatorControl(addresses.control) as control,
        ):
            running = Running(addresses, session, settings.tokens[0], control)
            attempts = await settled(running, done["id"])

    completions = [one for one in attempts if one["event"] == "completed"]
    assert completions[-1]["status"] == 200
    assert len({one["webhook_id"] for one in completions}) == 1
    assert len({one.id for one in receiver.received[1:]}) == 1
