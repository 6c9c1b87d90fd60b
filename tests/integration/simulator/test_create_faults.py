"""What the faults at creates do, seen from a bare socket."""

import asyncio
import json
from typing import Any

import pytest

from services.simulator.client import ControlError
from services.simulator.faults.action import Action, Operation
from services.simulator.faults.actions import (
    AnswerAction,
    CreateLate,
    CreateThenDrop,
    CreateThenHang,
    CreateThenStatus,
    Drop,
    Empty200,
    HugeHeaders,
    MalformedJson,
    NoCredit,
    NoVersion,
    NullModel,
    Redirect,
    ShownAction,
    SlowBytes,
    Status,
    Throttle,
    UnknownFields,
    UnknownStatus,
    WebhookBeforeCreateAnswer,
)
from services.simulator.faults.fault import Match
from tests.integration.simulator.harness import SMALL, Receiver, Running, Start, eventually
from tests.integration.simulator.raw_call import raw_create

HTML = "text/html; charset=utf-8"
JSON = "application/json; charset=utf-8"


def kind(value: object) -> str | None:
    return value.kind if isinstance(value, Action) else None


async def created(running: Running) -> int:
    return len(await running.control.predictions())


@pytest.mark.parametrize(
    ("action", "status", "content_type", "predictions"),
    [
        (Status(status=400), 400, JSON, 0),
        (Status(status=500), 500, JSON, 0),
        (Status(status=504, html=True), 504, HTML, 0),
        (NoCredit(), 402, JSON, 0),
        (Throttle(), 429, JSON, 0),
        (Redirect(), 302, None, 0),
        (Drop(), None, None, 0),
        (CreateThenDrop(), None, None, 1),
        (CreateThenHang(hang_s=0.2), None, None, 1),
        (CreateThenStatus(), 500, JSON, 1),
        (CreateThenStatus(status=502, html=True), 502, HTML, 1),
        (CreateThenStatus(status=503), 503, JSON, 1),
        (MalformedJson(), 201, JSON, 1),
        (Empty200(), 200, None, 1),
        (HugeHeaders(), 201, JSON, 1),
        (SlowBytes(bytes_per_s=3000), 201, JSON, 1),
    ],
    ids=kind,
)
async def test_the_answer_and_what_was_created(
    start: Start, action: AnswerAction, status: int | None, content_type: str, predictions: int
) -> None:
    running = await start(speed=0.01)
    await running.control.fault(action)

    heard = await raw_create(running)

    assert heard.status == status
    if content_type is not None:
        assert heard.headers["content-type"] == content_type
    assert await created(running) == predictions
    (request,) = await running.control.requests()
    assert (request["status"], request["fault"]) == (status, action.kind)
    if predictions:
        assert request["prediction"] == (await running.control.predictions())[0]["id"]
    assert (await raw_create(running)).status == 201


async def test_a_hanging_create_has_created_and_says_nothing_for_long(start: Start) -> None:
    running = await start(speed=0.01)
    await running.control.fault(CreateThenHang(hang_s=1.0))
    hanging = asyncio.create_task(raw_create(running))

    async def there() -> bool | None:
        return await created(running) == 1 or None

    await eventually(there)
    assert not hanging.done()
    heard = await hanging
    assert heard.content == b""
    assert heard.first_s >= 1.0


async def test_a_reset_ends_what_hangs(start: Start) -> None:
    running = await start(speed=0.01)
    await running.control.fault(CreateThenHang(hang_s=60))
    hanging = asyncio.create_task(raw_create(running))

    async def fired() -> bool | None:
        return bool(await running.control.firings()) or None

    await eventually(fired)
    await running.control.reset()

    assert (await asyncio.wait_for(hanging, 10)).content == b""
    assert await running.control.faults() == []


async def test_a_late_create_appears_after_its_connection_has_ended(start: Start) -> None:
    running = await start(speed=0.01)
    await running.control.fault(CreateLate(late_s=0.3))

    heard = await raw_create(running)
    at_once = await created(running)

    async def there() -> bool | None:
        return await created(running) == 1 or None

    assert (heard.content, at_once) == (b"", 0)
    await eventually(there)


@pytest.mark.parametrize(
    ("told_in", "header", "body"),
    [
        ("header", True, False),
        ("body", False, True),
        ("both", True, True),
        ("neither", False, False),
    ],
)
async def test_a_throttle_says_when_to_come_again(
    start: Start, told_in: Any, header: bool, body: bool
) -> None:
    running = await start(speed=0.01)
    await running.control.fault(Throttle(retry_after_s=2.5, told_in=told_in))

    heard = await raw_create(running)

    assert heard.headers.get("retry-after") == ("3" if header else None)
    assert heard.json.get("retry_after") == (3 if body else None)
    assert heard.json["status"] == 429


async def test_a_redirect_leads_to_the_other_listener(start: Start) -> None:
    running = await start()
    await running.control.fault(Redirect())

    location = (await raw_create(running)).headers["location"]

    assert location == f"{running.addresses.delivery}/v1/models/{SMALL}/predictions"


async def test_an_answer_is_cut_swollen_or_dripping(start: Start) -> None:
    running = await start(speed=0.01)
    for action in (MalformedJson(), HugeHeaders(size_bytes=500_000), SlowBytes(bytes_per_s=2000)):
        await running.control.fault(action)

    cut, swollen, dripping = [await raw_create(running) for _ in range(3)]

    with pytest.raises(ValueError):
        json.loads(cut.body)
    assert cut.body.startswith(b'{"id":"')
    assert len(swollen.content) - len(swollen.body) >= 500_000
    assert dripping.pieces >= 4
    assert dripping.json["status"] == "starting"


@pytest.mark.parametrize(
    ("action", "field", "value"),
    [
        (UnknownStatus(status="napping"), "status", "napping"),
        (NullModel(), "model", None),
        (NoVersion(), "version", "absent"),
        (UnknownFields(), "priority", "high"),
    ],
    ids=kind,
)
async def test_an_answer_shows_the_prediction_otherwise(
    start: Start, action: ShownAction, field: str, value: object
) -> None:
    running = await start(speed=0.01)
    await running.control.fault(action, Match(operation=Operation.CREATE))

    answer = (await raw_create(running)).json
    read = await running.get(answer["id"])

    assert answer.get(field, "absent") == value
    assert read.get(field, "absent") != value


async def test_a_webhook_can_come_before_the_answer(start: Start, receiver: Receiver) -> None:
    running = await start()
    await running.control.fault(WebhookBeforeCreateAnswer())

    heard = await raw_create(running, webhook=f"{receiver.address}/hook?g=g1")

    assert receiver.received
    assert json.loads(receiver.received[0].body)["id"] == heard.json["id"]


async def test_a_fault_finds_its_generation_model_and_token(start: Start) -> None:
    running = await start(speed=0.01, tokens=("r8_one", "r8_two"))
    control = running.control
    hook = "http://127.0.0.1:1/hook?a=1&g=g7&k=x"
    by_version = {"version": "wavespeedai/wan-2.1-t2v-480p", "input": {"prompt": "a lake"}}
    await control.fault(Status(status=500), Match(generation="g7"))
    await control.fault(Status(status=501), Match(model="wavespeedai/wan-2.1-t2v-480p"))
    await control.fault(Status(status=502), Match(token="r8_two"))
    await control.fault(Status(status=503), Match(operation=Operation.ACCOUNT))

    statuses = [
        (await raw_create(running)).status,
        (await raw_create(running, webhook=hook)).status,
        (await running.call("POST", "/predictions", json=by_version))[0],
        (await running.call("GET", "/predictions", "r8_two"))[0],
        (await running.call("GET", "/account"))[0],
    ]

    assert statuses == [201, 500, 501, 502, 503]
    firings = await control.firings()
    assert [(one.operation, one.generation) for one in firings] == [
        ("create", "g7"),
        ("create", None),
        ("list", None),
        ("account", None),
    ]
    assert [one["generation"] for one in await control.requests()][:2] == [None, "g7"]


async def test_a_body_that_is_refused_can_be_lost_too(start: Start) -> None:
    running = await start()
    await running.control.fault(CreateThenDrop())

    assert (await raw_create(running, nonsense=1)).content == b""
    assert await created(running) == 0


async def test_the_control_listener_names_field_and_rule(start: Start) -> None:
    running = await start()
    address = f"{running.addresses.control}/control"

    async def answer(method: str, path: str, **more: Any) -> tuple[int, Any]:
        async with running.session.request(method, address + path, **more) as response:
            return response.status, await response.json()

    fault = {"action": {"kind": "create_then_hang", "hang_s": -1}, "times": 0}
    assert await answer("POST", "/faults", json=fault) == (
        422,
        {
            "errors": [
                {
                    "field": "action.create_then_hang.hang_s",
                    "rule": "Input should be greater than 0",
                },
                {"field": "times", "rule": "Input should be greater than or equal to 1"},
            ]
        },
    )
    assert (await answer("POST", "/faults", data=b"{"))[0] == 400
    assert (await answer("POST", "/faults", json=[]))[0] == 400
    assert await answer("PUT", "/profile", json={"profile": "hail"}) == (
        422,
        {
            "errors": [
                {
                    "field": "profile",
                    "rule": "Input should be 'calm', 'flaky', 'storm', 'outage' or 'low_credit'",
                }
            ]
        },
    )
    status, body = await answer("PATCH", "/switches", json={"list_lag_s": -1, "weather": 1})
    assert (status, [one["field"] for one in body["errors"]]) == (422, ["list_lag_s", "weather"])
    with pytest.raises(ControlError, match=r"latest_version: Input should be a valid boolean"):
        await running.control.switch(latest_version="perhaps")


async def test_faults_are_listed_and_removed(start: Start) -> None:
    running = await start(speed=0.01)
    control = running.control
    first = await control.fault(Drop(), Match(nth=2), times=5, lasts_s=60)
    second = await control.fault(Status(status=500), Match(operation=Operation.CREATE))
    await raw_create(running)

    listed = await control.faults()
    await control.remove(first)
    left = await control.faults()
    await control.remove_all()

    assert [(one.id, one.seen, one.fired) for one in listed] == [(1, 1, 0), (2, 1, 1)]
    assert listed[0].fault == first.fault
    assert [one.id for one in left] == [second.id]
    assert await control.faults() == []
    assert [one.kind for one in await control.firings()] == ["status"]
