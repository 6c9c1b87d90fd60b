"""What the faults at webhooks do, seen by the customer's web server."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
import standardwebhooks
import svix

from services.simulator.faults.action import Action
from services.simulator.faults.actions import Fail, Jump, Rotate
from services.simulator.faults.fault import AnyAction, Match
from services.simulator.faults.webhook_actions import (
    AfterRetention,
    AimAtOtherGeneration,
    AttemptAction,
    BadSignature,
    Chunked,
    DelayWebhook,
    DropWebhook,
    DuplicateHeader,
    DuplicateWebhook,
    Flood,
    FractionalTimestamp,
    FutureTimestamp,
    GarbageTokenFirst,
    Gzip,
    HugeLogs,
    MissingHeader,
    NotJson,
    OtherEnvironment,
    Regress,
    Reorder,
    SlowBody,
    StaleTimestamp,
    TamperBody,
    TamperQuery,
    TwoSignatures,
    V2Only,
    WrongMethod,
    WrongSecret,
)
from tests.integration.simulator.harness import Received, Receiver, Running, Start, eventually

START = Match(event="start")
COMPLETED = Match(event="completed")
FILTER = ["start", "completed"]


def kind(value: object) -> str | None:
    return value.kind if isinstance(value, Action) else None


async def ended(running: Running, receiver: Receiver, prompt: str = "a lake [fail]") -> str:
    """Returns the id of a prediction that failed, all of whose webhooks have been sent."""
    created = await running.create(
        prompt, webhook=f"{receiver.address}/hook?g=g1&a=1&k=xxA", webhook_events_filter=FILTER
    )

    async def settled() -> bool | None:
        return (await running.truth(created["id"]))["settled"] or None

    await eventually(settled)
    return str(created["id"])


def statuses(receiver: Receiver) -> list[str]:
    return [json.loads(one.body)["status"] for one in receiver.received]


@pytest.mark.parametrize(
    ("match", "left"),
    [(START, ["failed"]), (COMPLETED, ["processing"]), (Match(), [])],
    ids=["start", "completed", "all"],
)
async def test_events_are_lost(
    start: Start, receiver: Receiver, match: Match, left: list[str]
) -> None:
    running = await start()
    await running.control.fault(DropWebhook(), match, times=None)

    prediction_id = await ended(running, receiver)
    await receiver.gets(len(left))

    assert statuses(receiver) == left
    attempts = (await running.truth(prediction_id))["attempts"]
    assert [one["fault"] for one in attempts].count("drop_webhook") == 2 - len(left)


@pytest.mark.parametrize("same_id", [True, False])
async def test_an_event_comes_again_and_again(
    start: Start, receiver: Receiver, same_id: bool
) -> None:
    running = await start()
    await running.control.fault(DuplicateWebhook(copies=3, same_id=same_id), COMPLETED)

    await ended(running, receiver)
    received = await receiver.gets(5)

    finals = [one for one in received if json.loads(one.body)["status"] == "failed"]
    assert len(finals) == 4
    assert len({one.id for one in finals}) == (1 if same_id else 4)


async def test_the_end_comes_before_the_start(start: Start, receiver: Receiver) -> None:
    running = await start()
    await running.control.fault(Reorder())

    await ended(running, receiver)
    await receiver.gets(2)

    assert statuses(receiver) == ["failed", "processing"]


async def test_an_event_is_delayed(start: Start, receiver: Receiver) -> None:
    running = await start()
    await running.control.fault(DelayWebhook(delay_s=0.5), START)

    await ended(running, receiver)
    late = (await receiver.gets(2))[1]

    assert json.loads(late.body)["status"] == "processing"
    assert late.at - receiver.received[0].at > 0.2


async def test_an_event_comes_without_its_data(start: Start, receiver: Receiver) -> None:
    running = await start()
    await running.control.fault(AfterRetention(), COMPLETED)
    created = await running.create("a lake [fail]", webhook=f"{receiver.address}/hook")
    await running.reaches(created["id"], "failed")
    await receiver.gets(1)

    await running.control.fault(Jump(jump_s=3601))
    await running.get(created["id"])
    body = json.loads((await receiver.gets(2))[1].body)

    assert (body["status"], body["input"], body["data_removed"]) == ("failed", {}, True)


async def test_a_prediction_seems_to_run_again(start: Start, receiver: Receiver) -> None:
    running = await start()
    await running.control.fault(Regress(), COMPLETED)

    await ended(running, receiver)
    received = await receiver.gets(3)

    assert statuses(receiver)[-2:] == ["failed", "processing"]
    assert len({one.id for one in received}) == 3
    assert json.loads(received[-1].body)["completed_at"] is None


async def test_events_flood(start: Start, receiver: Receiver) -> None:
    running = await start()
    await running.control.fault(Flood(per_second=200, flood_s=0.25), COMPLETED)

    await ended(running, receiver)
    received = await receiver.gets(52)

    assert len({one.id for one in received}) == 2


def header(name: str) -> Callable[[Received], Any]:
    return lambda one: one.headers.get(name)


@pytest.mark.parametrize(
    ("action", "look", "seen"),
    [
        (MissingHeader(header="webhook-id"), header("webhook-id"), None),
        (TamperQuery(), lambda one: one.path, "/hook?g=g1&a=1&k=xxB"),
        (AimAtOtherGeneration(generation="g2"), lambda one: one.path, "/hook?g=g2&a=1&k=xxA"),
        (OtherEnvironment(query="g=g1&a=9&k=z"), lambda one: one.path, "/hook?g=g1&a=9&k=z"),
        (NotJson(), lambda one: one.body[:6], "<html>"),
        (Chunked(), header("transfer-encoding"), "chunked"),
        (Chunked(), header("content-length"), None),
        (SlowBody(body_s=0.5), header("transfer-encoding"), None),
        (Gzip(), header("content-encoding"), "gzip"),
        (HugeLogs(size_mib=0.5), lambda one: len(one.body) > 512 * 1024, True),
        (BadSignature(), header("webhook-signature"), "v1," + "A" * 43 + "="),
    ],
    ids=kind,
)
async def test_an_attempt_is_spoiled_and_the_event_repeated_soundly(
    start: Start, receiver: Receiver, action: AttemptAction, look: Any, seen: object
) -> None:
    running = await start()
    receiver.answers = [200, 400]
    await running.control.fault(action, COMPLETED)

    prediction_id = await ended(running, receiver)
    _, spoiled, sound = await receiver.gets(3)

    assert look(spoiled) == seen
    secret = (await running.call("GET", "/webhooks/default/secret"))[1]["key"]
    standardwebhooks.Webhook(secret).verify(sound.body, sound.headers)
    attempts = (await running.truth(prediction_id))["attempts"]
    assert [one["fault"] for one in attempts] == [None, action.kind, None]


@pytest.mark.parametrize(
    ("action", "is_taken", "named"),
    [
        (BadSignature(), False, "v1,AAAA"),
        (WrongSecret(), False, "v1,"),
        (V2Only(), False, "v2,"),
        (TwoSignatures(), True, "v1,"),
        (StaleTimestamp(), False, "v1,"),
        (FutureTimestamp(), False, "v1,"),
        (TamperBody(), False, "v1,"),
    ],
    ids=kind,
)
@pytest.mark.parametrize("library", [standardwebhooks.Webhook, svix.Webhook])
async def test_independent_verifiers_take_a_spoiled_signature_or_not(
    start: Start, receiver: Receiver, library: Any, action: AttemptAction, is_taken: bool,
    named: str,
) -> None:  # fmt: skip
    running = await start()
    await running.control.fault(action, COMPLETED)

    await ended(running, receiver)
    _, spoiled = await receiver.gets(2)
    verifier = library((await running.call("GET", "/webhooks/default/secret"))[1]["key"])

    assert spoiled.headers["webhook-signature"].startswith(named)
    if is_taken:
        verifier.verify(spoiled.body, spoiled.headers)
    else:
        with pytest.raises(Exception, match=r"(?i)signature|timestamp"):
            verifier.verify(spoiled.body, spoiled.headers)


async def test_garbage_stands_before_the_right_signature(start: Start, receiver: Receiver) -> None:
    running = await start()
    await running.control.fault(GarbageTokenFirst(), COMPLETED)

    await ended(running, receiver)
    _, spoiled = await receiver.gets(2)
    secret = (await running.call("GET", "/webhooks/default/secret"))[1]["key"]
    *garbage, right = spoiled.headers["webhook-signature"].split(" ")

    # The libraries themselves stumble over what is no pair, so they are given the last only.
    assert garbage == ["v1", "v1,", "v1,!!!!", ",v1", "v1a,AAAA"]
    standardwebhooks.Webhook(secret).verify(
        spoiled.body, {**spoiled.headers, "webhook-signature": right}
    )


async def test_a_timestamp_can_have_a_fraction(start: Start, receiver: Receiver) -> None:
    running = await start()
    await running.control.fault(FractionalTimestamp(), COMPLETED)

    await ended(running, receiver)

    assert (await receiver.gets(2))[1].headers["webhook-timestamp"].endswith(".25")


async def test_other_methods_double_headers_and_tampered_bodies_arrive(
    start: Start, receiver: Receiver
) -> None:
    running = await start()
    for action in (WrongMethod(), DuplicateHeader(), TamperBody()):
        await running.control.fault(action, COMPLETED)

    attempts = (await running.truth(await ended(running, receiver)))["attempts"]

    assert [(one["fault"], one["status"]) for one in attempts] == [
        (None, 200),
        ("wrong_method", 405),
        ("duplicate_header", 200),
    ]


async def test_the_receiver_unpacks_what_was_packed(start: Start, receiver: Receiver) -> None:
    running = await start()
    await running.control.fault(Gzip(), COMPLETED)

    await ended(running, receiver)
    packed = (await receiver.gets(2))[1]

    assert json.loads(packed.body)["status"] == "failed"
    assert int(packed.headers["content-length"]) < len(gzip.compress(packed.body.encode())) + 50


async def test_a_new_secret_signs_beside_the_old_one_and_then_alone(
    start: Start, receiver: Receiver
) -> None:
    running = await start()

    async def secret() -> str:
        return str((await running.call("GET", "/webhooks/default/secret"))[1]["key"])

    old = await secret()
    await running.control.fault(Rotate(overlap_s=600))
    new = await secret()
    await ended(running, receiver)
    await running.control.fault(Jump(jump_s=601))
    await ended(running, receiver)

    both, alone = receiver.received[0], receiver.received[-1]
    assert old != new
    for key in (old, new):
        standardwebhooks.Webhook(key).verify(both.body, both.headers)
    assert len(alone.headers["webhook-signature"].split(" ")) == 1
    await running.control.reset()
    assert await secret() == old


@pytest.mark.parametrize("sent", [True, False])
async def test_the_webhook_of_an_aborted_prediction_is_a_switch(
    start: Start, receiver: Receiver, sent: bool
) -> None:
    running = await start()
    await running.control.switch(aborted_webhook=sent)
    aborted = await running.create("a lake [abort]", webhook=f"{receiver.address}/hook")
    await running.reaches(aborted["id"], "aborted")

    await ended(running, receiver)

    ids = {json.loads(one.body)["id"] for one in receiver.received}
    assert (aborted["id"] in ids) is sent


async def test_all_events_of_a_prediction_may_share_an_id(start: Start, receiver: Receiver) -> None:
    running = await start()
    await running.control.switch(webhook_id_per="prediction")

    await ended(running, receiver)
    await ended(running, receiver)

    assert len({one.id for one in await receiver.gets(4)}) == 2


async def test_the_weather_of_a_run_can_be_read_from_its_journal(
    start: Start, receiver: Receiver
) -> None:
    """Two runs of one seed, creates one after another: the same faults meet the same ones."""

    async def run() -> list[tuple[str, int]]:
        running = await start(seed=3)
        faults: list[tuple[AnyAction, float]] = [(Fail(error="hail"), 0.3), (DropWebhook(), 0.3)]
        for action, probability in faults:
            await running.control.fault(action, Match(probability=probability), times=None)
        numbers: dict[str | None, int] = {}
        for number in range(12):
            numbers[await ended(running, receiver)] = number
        return [(one.kind, numbers[one.prediction]) for one in await running.control.firings()]

    first = await run()

    assert first == await run()
    assert len({kind for kind, _ in first}) == 2
