"""What the control listener tells whoever judges the product: truth, ledger and violations."""

import asyncio
import json
import math
from typing import Any

import pytest

from services.simulator.client import ClockReading, ControlError
from services.simulator.faults.action import Operation
from services.simulator.faults.actions import (
    CancelRace,
    CreateThenDrop,
    CreateThenStatus,
    ExpireNow,
    ListLag,
    MalformedJson,
    NextOnForeignHost,
    Redirect,
    ResetMidway,
    SlowBytes,
    Throttle,
    Truncate,
    UnknownStatus,
)
from services.simulator.faults.fault import AnyAction, Match
from services.simulator.faults.webhook_actions import DropWebhook
from services.simulator.judging.terms import Terms
from services.simulator.judging.verdict import Verdict
from services.simulator.prediction import Status
from tests.integration.simulator.harness import SMALL, Receiver, Running, Start, eventually
from tests.integration.simulator.raw_call import Heard, raw_call


def asked(receiver: Receiver, generation: str = "g1", prompt: str = "a lake") -> dict[str, Any]:
    """Returns a create as it should be."""
    return {
        "input": {"prompt": prompt, "frame_num": 17, "seed": 7},
        "webhook": f"{receiver.address}/hook?g={generation}&a=1&k=proof",
    }


async def post(running: Running, body: dict[str, Any], **headers: str) -> Heard:
    """Returns what comes back to a create."""
    address = f"{running.addresses.api}/v1/models/{SMALL}/predictions"
    content, sent = json.dumps(body).encode(), {"Cancel-After": "300", **headers}
    return await raw_call("POST", address, running.token, content, sent)


async def video_of(running: Running, prediction_id: str) -> str:
    return str((await running.reaches(prediction_id, "succeeded"))["output"])


async def fetched(running: Running, prediction_id: str, count: int = 1) -> list[dict[str, Any]]:
    """Returns the fetches on record once there are so many."""

    async def enough() -> list[dict[str, Any]] | None:
        fetches: list[dict[str, Any]] = (await running.truth(prediction_id))["fetches"]
        return fetches if len(fetches) >= count else None

    return await eventually(enough)


def rules(found: Verdict) -> list[int]:
    return sorted({one.rule for one in found.violations})


async def test_the_truth_has_the_request_as_it_came_without_the_token(
    start: Start, receiver: Receiver
) -> None:
    running = await start(video="stamp")
    body = asked(receiver)
    created = (await post(running, body)).json

    truth = await running.truth(created["id"])

    assert json.loads(truth["request"]) == body
    assert truth["request_path"] == f"/v1/models/{SMALL}/predictions"
    headers = dict(truth["request_headers"])
    assert headers["Authorization"].startswith("simulated-")
    assert headers["Cancel-After"] == "300"
    assert running.token not in json.dumps(truth)
    assert (truth["webhook"], truth["group"]) == (body["webhook"], "g1")


async def test_the_truth_has_each_webhook_attempt_with_its_answer(
    start: Start, receiver: Receiver
) -> None:
    running = await start(video="stamp")
    receiver.answers = [200, 503]
    created = (await post(running, asked(receiver, prompt="a lake [fail]"))).json

    async def done() -> dict[str, Any] | None:
        truth = await running.truth(created["id"])
        return truth if truth["settled"] else None

    attempts = (await eventually(done))["attempts"]

    seen = [(one["event"], one["status"]) for one in attempts]
    assert seen == [("start", 200), ("completed", 503), ("completed", 200)]
    assert all(one["at"] <= one["ended_at"] for one in attempts)


async def test_the_truth_survives_retention(start: Start, receiver: Receiver) -> None:
    running = await start(video="stamp")
    created = (await post(running, asked(receiver, prompt="a lake [fail]"))).json
    await running.reaches(created["id"], "failed")
    await running.control.change_clock(jumped_s=3601)

    async def removed() -> dict[str, Any] | None:
        truth = await running.truth(created["id"])
        return truth if truth["data_removed"] else None

    truth = await eventually(removed)

    assert json.loads(truth["request"])["input"]["seed"] == 7
    assert truth["group"] == "g1"


async def test_a_fetch_is_whole_or_partial(start: Start) -> None:
    running = await start(video="stamp")
    output = await video_of(running, (await running.create())["id"])
    prediction_id = output.split("/")[-2]

    first = await raw_call("GET", output, headers={"Range": "bytes=0-99"})
    (part,) = await fetched(running, prediction_id)
    assert (await running.truth(prediction_id))["fetched_at"] is None
    rest = await raw_call("GET", output, headers={"Range": "bytes=100-"})
    await fetched(running, prediction_id, 2)
    by_parts = (await running.truth(prediction_id))["fetched_at"]
    await raw_call("HEAD", output)
    await raw_call("GET", output)
    *_, head, whole = await fetched(running, prediction_id, 4)

    size_bytes = len(first.body) + len(rest.body)
    assert (part["first_byte"], part["end_byte"], part["size_bytes"]) == (0, 100, size_bytes)
    assert (part["status"], part["is_whole"]) == (206, False)
    assert by_parts is not None
    assert (head["end_byte"], head["is_whole"]) == (0, False)
    assert (whole["status"], whole["end_byte"], whole["is_whole"]) == (200, size_bytes, True)
    assert whole["begun_at"] <= whole["ended_at"]


@pytest.mark.parametrize(
    ("action", "status", "is_whole"),
    [
        (Truncate(), 200, False),
        (ResetMidway(), 200, False),
        (Redirect(), 302, False),
        (ExpireNow(), 404, False),
        (SlowBytes(bytes_per_s=1e6), 200, True),
    ],
    ids=lambda value: getattr(value, "kind", str(value)),
)
async def test_a_spoiled_fetch_is_told_from_a_whole_one(
    start: Start, action: AnyAction, status: int, is_whole: bool
) -> None:
    running = await start(video="stamp")
    output = await video_of(running, (await running.create())["id"])
    await running.control.fault(action, Match(operation=Operation.FILE))

    await raw_call("GET", output)
    (fetch,) = await fetched(running, output.split("/")[-2])

    assert (fetch["status"], fetch["is_whole"], fetch["fault"]) == (status, is_whole, action.kind)


async def test_the_ledger_charges_what_gave_a_video(start: Start, receiver: Receiver) -> None:
    running = await start(video="stamp")
    good = (await post(running, asked(receiver))).json
    bad = (await post(running, asked(receiver, prompt="a lake [fail]"))).json
    await running.reaches(good["id"], "succeeded")
    await running.reaches(bad["id"], "failed")

    ledger = await running.control.ledger()
    await running.control.switch(failed_charged=True)
    later = {one.prediction: one for one in (await running.control.ledger()).charges}

    costs = {one.prediction: (one.status, one.micro_usd) for one in ledger.charges}
    assert costs == {good["id"]: (Status.SUCCEEDED, 200_000), bad["id"]: (Status.FAILED, 0)}
    (account,) = ledger.accounts.values()
    assert ledger.generations["g1"] == account == ledger.total
    assert (account.predictions, account.charged, account.micro_usd) == (2, 1, 200_000)
    assert later[bad["id"]].unit == "machine_second"
    failed_after_s = (await running.truth(bad["id"]))["predict_s"]
    assert later[bad["id"]].micro_usd == math.ceil(round(failed_after_s, 6) * 1525)
    assert ledger.missing == 0


async def test_the_price_is_that_of_the_seconds_that_were_asked_for(start: Start) -> None:
    running = await start(video="stamp")
    await running.control.switch(schemas="spring-2025")
    body = {"input": {"prompt": "a lake", "num_frames": 80, "frames_per_second": 20}}
    path = "/models/wavespeedai/wan-2.1-t2v-480p/predictions"
    _, created = await running.call("POST", path, json=body)
    await running.reaches(created["id"], "succeeded")

    (charge,) = (await running.control.ledger()).charges

    assert (charge.unit, charge.quantity, charge.micro_usd) == ("output_second", 4, 320_000)


async def good_product(running: Running, receiver: Receiver, generation: str) -> None:
    """Makes a video as it should be made, and waits a little longer than is asked for."""
    heard = await post(running, asked(receiver, generation))
    while heard.status == 429:
        await asyncio.sleep(heard.json["retry_after"])  # It is what a client has to do.
        heard = await post(running, asked(receiver, generation))
    output = await video_of(running, heard.json["id"])
    prediction_id = output.split("/")[-2]
    for _ in range(2):
        if (await raw_call("GET", output)).content:
            break
    await fetched(running, prediction_id)


async def test_a_good_product_breaks_no_rule(start: Start, receiver: Receiver) -> None:
    running = await start(video="stamp")
    await running.control.fault(Throttle(), Match(operation=Operation.CREATE))

    await good_product(running, receiver, "g1")
    await good_product(running, receiver, "g2")
    found = await running.control.violations(Terms(polls_after_end_max=1000))

    assert found.violations == ()
    assert found.orphans == ()
    assert (found.judged_predictions, found.missing_requests, found.missing_predictions) == (
        2, 0, 0,
    )  # fmt: skip
    assert found.judged_requests >= 7


@pytest.mark.parametrize(
    "lost",
    [CreateThenDrop(), CreateThenStatus(status=502, html=True), MalformedJson()],
    ids=lambda action: action.kind,
)
async def test_a_product_that_blindly_repeats_a_lost_create_is_found(
    start: Start, receiver: Receiver, lost: AnyAction
) -> None:
    running = await start(video="stamp")
    await running.control.fault(lost, Match(operation=Operation.CREATE))
    await post(running, asked(receiver))
    created = (await post(running, asked(receiver))).json
    output = await video_of(running, created["id"])
    await raw_call("GET", output)

    async def all_over() -> bool | None:
        return all(one["settled"] for one in await running.control.predictions()) or None

    await eventually(all_over)
    found = await running.control.violations(Terms(polls_after_end_max=1000))

    assert rules(found) == [1, 2, 4]
    assert {one.group for one in found.violations} == {"g1"}
    (orphan,) = found.orphans
    assert (orphan.micro_usd, orphan.was_canceled) == (200_000, False)
    creates = [one for one in await running.control.requests() if one["asked"]]
    (twice,) = [one for one in found.violations if one.rule == 2]
    assert list(twice.requests) == [one["number"] for one in creates]


async def test_a_product_that_hears_nothing_and_repeats_blindly_is_found_too(
    start: Start, receiver: Receiver
) -> None:
    running = await start(video="stamp")
    await running.control.fault(CreateThenDrop(), Match(operation=Operation.CREATE))
    await running.control.fault(DropWebhook(), times=None)
    await post(running, asked(receiver))
    created = (await post(running, asked(receiver))).json
    await raw_call("GET", await video_of(running, created["id"]))

    assert rules(await running.control.violations(Terms(polls_after_end_max=1000))) == [1, 2]


async def test_bad_manners_are_found(start: Start, receiver: Receiver) -> None:
    running = await start(video="stamp", speed=0.01, tokens=("r8_one", "r8_two"))
    bare = {"input": {"prompt": "a lake", "frame_num": 17}, "webhook": f"{receiver.address}/hook"}
    address = f"{running.addresses.api}/v1/models/{SMALL}/predictions"
    raw = json.dumps(bare).encode()
    other = (await raw_call("POST", address, "r8_two", raw)).json
    await running.call("POST", "/webhooks")
    await running.call("POST", f"/predictions/{other['id']}/cancel")
    await raw_call("GET", running.addresses.output(other["id"]), running.token)
    await running.control.fault(Throttle(retry_after_s=60), Match(operation=Operation.CREATE))
    await post(running, asked(receiver))
    await post(running, asked(receiver, "g2"), Prefer="respond-async")

    found = await running.control.violations(Terms(reaction_s=0))

    assert rules(found) == [1, 4, 5, 6, 7]
    lacks = sorted(one.proof.split(" ", 2)[2] for one in found.violations if one.rule == 6)
    assert lacks == [
        "calls what Replicate does not have",
        "has a Prefer header",
        "has a webhook without 'k' in its query",
        "has no Cancel-After",
        "has no explicit seed",
    ]
    only_two = (await running.truth(other["id"]))["account"]
    assert rules(await running.control.violations(Terms(account=only_two))) == [1, 5, 6]


async def test_the_terms_come_by_query_or_by_body_and_are_checked(start: Start) -> None:
    running = await start()
    address = f"{running.addresses.control}/control/violations"

    async def ask(query: str) -> tuple[int, Any]:
        async with running.session.get(f"{address}?{query}") as answer:
            return answer.status, await answer.json()

    status, found = await ask("grace_s=5&is_over=false&adopted=p1&adopted=p2")
    assert (status, found["violations"]) == (200, [])
    status, found = await ask("grace_s=soon")
    assert (status, found["errors"][0]["field"]) == (422, "grace_s")
    async with running.session.post(address, json={"adopted": "p1"}) as answer:
        assert (answer.status, (await answer.json())["errors"][0]["field"]) == (422, "adopted")


async def test_the_journal_is_read_in_pages_and_names_every_fault(start: Start) -> None:
    running = await start(speed=0.01)
    created = await running.create()
    for action, operation in (
        (UnknownStatus(), Operation.GET),
        (ListLag(), Operation.LIST),
        (NextOnForeignHost(), Operation.LIST),
        (CancelRace(), Operation.CANCEL),
    ):
        await running.control.fault(action, Match(operation=operation))
    await running.get(created["id"])
    for _ in range(2):
        await running.call("GET", "/predictions")
    await running.call("POST", f"/predictions/{created['id']}/cancel")

    entries = await running.control.requests()
    address = f"{running.addresses.control}/control/requests?after=2&limit=2"
    async with running.session.get(address) as answer:
        page = await answer.json()

    assert [one["fault"] for one in entries] == [
        None, "unknown_status", "list_lag", "next_on_foreign_host", "cancel_race",
    ]  # fmt: skip
    assert [one["number"] for one in entries] == [1, 2, 3, 4, 5]
    assert page == {"requests": entries[2:4], "missing_requests": 0}
    assert await running.control.requests(after=3) == entries[3:]
    async with running.session.get(f"{address}0000") as answer:
        assert (await answer.json())["errors"][0]["field"] == "limit"


async def test_the_clock_is_set_and_read(start: Start) -> None:
    running = await start()

    assert await running.control.clock() == ClockReading(0, 0)
    assert await running.control.change_clock(skew_s=-60) == ClockReading(0, -60)
    assert await running.control.change_clock(jumped_s=3600) == ClockReading(3600, -60)
    assert await running.control.change_clock(jumped_s=3600) == ClockReading(3600, -60)
    with pytest.raises(ControlError, match="skew_s: Input should be less than or equal to 86400"):
        await running.control.change_clock(skew_s=1e9)
    await running.control.reset()
    assert await running.control.clock() == ClockReading(0, 0)
