"""What the faults at reads, lists and cancels do, and those in the life of a prediction."""

from typing import Any

import pytest

from services.simulator.faults.action import Action, Operation
from services.simulator.faults.actions import (
    Abort,
    CancelRace,
    CancelStatus,
    DataRemovedEarly,
    DuplicateAcrossPages,
    Fail,
    Jump,
    LifeAction,
    ListLag,
    MalformedJson,
    NextOnForeignHost,
    NullModel,
    OmitFromList,
    OmitWebhook,
    PageShift,
    ShownAction,
    SlowBoot,
    Stale,
    Status,
    StuckStarting,
    SucceedWith,
    UnknownFields,
    UnknownStatus,
)
from services.simulator.faults.fault import AnyAction, Match
from tests.integration.simulator.harness import Running, Start
from tests.integration.simulator.raw_call import raw_call

HOOK = "http://127.0.0.1:1/hook?g=g1&a=1&k=x"


def kind(value: object) -> str | None:
    return value.kind if isinstance(value, Action) else None


async def listed(running: Running, **query: Any) -> list[str]:
    status, page = await running.call("GET", "/predictions", params=query)
    assert status == 200
    return [one["id"] for one in page["results"]]


@pytest.mark.parametrize("operation", [Operation.GET, Operation.LIST, Operation.CANCEL])
async def test_reads_fail_as_creates_do(start: Start, operation: Operation) -> None:
    running = await start(speed=0.01)
    created = await running.create()
    path, method = {
        Operation.GET: (f"/predictions/{created['id']}", "GET"),
        Operation.LIST: ("/predictions", "GET"),
        Operation.CANCEL: (f"/predictions/{created['id']}/cancel", "POST"),
    }[operation]
    await running.control.fault(Status(status=503, html=True), Match(operation=operation))

    assert await running.call(method, path) == (503, None)
    assert (await running.truth(created["id"]))["status"] == "starting"
    assert (await running.call(method, path))[0] == 200


@pytest.mark.parametrize("operation", [Operation.GET, Operation.LIST, Operation.CANCEL])
@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (UnknownStatus(), {"status": "queued"}),
        (NullModel(), {"model": None}),
        (OmitWebhook(), {"webhook": "absent", "webhook_events_filter": "absent"}),
        (UnknownFields(), {"priority": "high"}),
        (DataRemovedEarly(), {"data_removed": True, "input": {}, "logs": "", "output": None}),
    ],
    ids=kind,
)
async def test_a_read_shows_the_prediction_otherwise(
    start: Start, operation: Operation, action: ShownAction, expected: dict[str, Any]
) -> None:
    running = await start(speed=0.01)
    created = await running.create(webhook=HOOK)
    await running.control.fault(action, Match(operation=operation, generation="g1"))

    answer: dict[str, Any]
    match operation:
        case Operation.LIST:
            answer = (await running.call("GET", "/predictions"))[1]["results"][0]
        case Operation.CANCEL:
            path = f"/predictions/{created['id']}/cancel"
            answer = (await running.call("POST", path))[1]
        case _:
            answer = await running.get(created["id"])

    assert {key: answer.get(key, "absent") for key in expected} == expected
    assert (await running.get(created["id"]))["webhook"] == HOOK
    (firing,) = await running.control.firings()
    assert (firing.kind, firing.prediction) == (action.kind, created["id"])


async def test_a_stale_read_shows_an_earlier_prediction_or_none(start: Start) -> None:
    running = await start(speed=0.01)
    created = await running.create()
    path = f"/predictions/{created['id']}"
    await running.control.fault(Stale(age_s=3600), times=2)
    await running.control.fault(Jump(jump_s=1000), Match(operation=Operation.CANCEL))
    await running.control.fault(Stale(age_s=500), Match(operation=Operation.GET))

    assert (await running.call("GET", path))[0] == 404
    assert await listed(running) == []
    await running.call("POST", f"{path}/cancel")

    assert (await running.get(created["id"]))["status"] == "starting"
    assert (await running.get(created["id"]))["status"] == "canceled"


async def test_a_list_omits_one_generation_or_what_is_young(start: Start) -> None:
    running = await start(speed=0.01)
    first = await running.create(webhook=HOOK)
    second = await running.create()
    control = running.control

    await control.fault(OmitFromList(), Match(generation="g1"))
    assert await listed(running) == [second["id"]]
    await control.fault(ListLag(lag_s=20))
    assert await listed(running) == []
    await control.switch(list_lag_s=20)
    assert await listed(running) == []
    await control.switch(list_lag_s=0)
    assert await listed(running) == [second["id"], first["id"]]


@pytest.mark.parametrize(
    ("action", "second_page"),
    [(None, 0), (DuplicateAcrossPages(), -1), (PageShift(), 1)],
    ids=kind,
)
async def test_pages_overlap_or_leave_a_gap(
    start: Start, action: AnyAction | None, second_page: int
) -> None:
    running = await start(speed=0.01)
    newest_first = [(await running.create())["id"] for _ in range(103)][::-1]
    if action is not None:
        await running.control.fault(action)

    _, first = await running.call("GET", "/predictions")
    _, second = await running.call("GET", first["next"])

    assert [one["id"] for one in first["results"]] == newest_first[:100]
    assert [one["id"] for one in second["results"]] == newest_first[100 + second_page :]


async def test_the_next_page_is_said_to_be_elsewhere(start: Start) -> None:
    running = await start(speed=0.01)
    for _ in range(101):
        await running.create()
    await running.control.fault(NextOnForeignHost())

    _, page = await running.call("GET", "/predictions")

    assert page["next"].startswith(f"{running.addresses.delivery}/v1/predictions?cursor=")


async def test_a_cancel_is_done_but_its_answer_lost(start: Start) -> None:
    running = await start(speed=0.01)
    created = await running.create()
    path = f"/predictions/{created['id']}/cancel"
    await running.control.fault(CancelStatus(status=500))

    assert (await running.call("POST", path))[0] == 500
    assert (await running.get(created["id"]))["status"] == "canceled"


@pytest.mark.parametrize(("winner", "status"), [("cancel", "canceled"), ("run", "succeeded")])
async def test_a_cancel_races_with_the_run(start: Start, winner: Any, status: str) -> None:
    running = await start(speed=20.0)
    created = await running.create()
    await running.control.fault(CancelRace(winner=winner))

    code, answer = await running.call("POST", f"/predictions/{created['id']}/cancel")

    assert (code, answer["status"]) == (200, "starting")
    await running.reaches(created["id"], status)


@pytest.mark.parametrize("status", [200, 409])
async def test_the_cancel_of_a_finished_prediction_is_a_switch(start: Start, status: Any) -> None:
    running = await start()
    created = await running.create("a lake [abort]")
    await running.reaches(created["id"], "aborted")
    await running.control.switch(cancel_finished_status=status)

    answer = await running.call("POST", f"/predictions/{created['id']}/cancel")

    assert (answer[0], answer[1]["status"]) == (status, "aborted" if status == 200 else 409)


@pytest.mark.parametrize(
    ("action", "status", "error"),
    [
        (Fail(), "failed", "Prediction interrupted; please retry (code: PA)"),
        (Fail(error="E9243: unexpected error"), "failed", "E9243: unexpected error"),
        (Abort(), "aborted", None),
        (SucceedWith(output="null"), "succeeded", None),
    ],
    ids=kind,
)
async def test_a_life_ends_as_a_fault_wants_it(
    start: Start, action: LifeAction, status: str, error: str | None
) -> None:
    running = await start()
    await running.control.fault(action)
    spoiled, sound = await running.create(), await running.create()

    ended = await running.reaches(spoiled["id"], status)

    assert ended["error"] == error
    await running.reaches(sound["id"], "succeeded")
    (firing,) = await running.control.firings()
    assert (firing.operation, firing.prediction) == ("life", spoiled["id"])


async def test_a_boot_takes_long_or_for_ever(start: Start) -> None:
    running = await start()
    await running.control.fault(SlowBoot(boot_s=1_000))
    await running.control.fault(StuckStarting(), times=2)
    slow = await running.create()
    stuck = await running.create()
    ended = await running.create(headers={"Cancel-After": "5s"})

    await running.reaches(slow["id"], "succeeded")

    truth = await running.truth(slow["id"])
    assert truth["started_at"] - truth["created_at"] >= 1.0
    assert (await running.get(stuck["id"]))["status"] == "starting"
    await running.control.fault(Jump(jump_s=10))
    await running.get(stuck["id"])
    await running.reaches(ended["id"], "aborted")


@pytest.mark.parametrize(
    ("shape", "output"),
    [
        ("null", None),
        ("empty_list", []),
        ("list", ["{delivery}/xezq/{id}/output.mp4"]),
        ("http_url", "http://replicate.delivery/xezq/{id}/output.mp4"),
        ("foreign_host", "https://files.example/xezq/{id}/output.mp4"),
        ("data_url", "data:video/mp4;base64,"),
    ],
)
async def test_an_output_has_another_shape(start: Start, shape: Any, output: Any) -> None:
    running = await start()
    await running.control.fault(SucceedWith(output=shape))
    created = await running.create()

    done = await running.reaches(created["id"], "succeeded")

    def filled(text: str) -> str:
        return text.format(delivery=running.addresses.delivery, id=created["id"])

    if shape == "data_url":
        assert done["output"].startswith(output)
        assert len(done["output"]) > 1000
    elif isinstance(output, list):
        assert done["output"] == [filled(one) for one in output]
    else:
        assert done["output"] == (filled(output) if output else output)


async def test_any_call_of_the_api_can_be_spoiled(start: Start) -> None:
    running = await start()
    await running.control.fault(MalformedJson(), Match(operation=Operation.MODEL))
    await running.control.fault(Status(status=500), Match(operation=Operation.SECRET))
    await running.control.fault(Status(status=413), Match(operation=Operation.UPLOAD))

    model = f"{running.addresses.api}/v1/models/wan-video/wan-2.1-1.3b"
    assert not (await raw_call("GET", model, running.token)).body.endswith(b"}")
    assert (await raw_call("GET", model, running.token)).json["name"] == "wan-2.1-1.3b"
    assert (await running.call("GET", "/webhooks/default/secret"))[0] == 500
    assert (await running.upload(b"a picture"))[0] == 413
    assert (await running.upload(b"a picture"))[0] == 201
