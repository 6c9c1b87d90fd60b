"""ReplayEvents and DropEvents."""

from typing import Any

import pytest

from services.runtime.errors import NotFound
from tests.contract.webhook.harness import (
    DEAD_BODY,
    GOOD_BODY,
    LATER_BODY,
    State,
    Webhooks,
    bad_fields,
    refusal,
)
from tests.integration.webhook.harness import eventually, good_query


async def test_a_replay_delivers_once_more_and_generation_tells_that_it_knows(
    webhooks: Webhooks,
) -> None:
    event = await webhooks.arrive("msg_1", GOOD_BODY, good_query())

    answer = await webhooks.call("ReplayEvents", filter={"event_ids": [event.event_id]})

    assert (answer.replayed_count, answer.gone_count) == (1, 0)
    assert list(answer.events) == [event]
    again = await eventually(lambda: _with_tries(webhooks, event.event_id, 2))
    assert (again.state, again.disposition) == (State.DELIVERED, "DUPLICATE")
    assert list(webhooks.generation.calls.values()) == [2]


async def _with_tries(webhooks: Webhooks, event_id: str, tries: int) -> Any:
    event = await webhooks.call("GetEvent", event_id=event_id)
    return event if event.tries == tries and event.state != State.PENDING else None


async def test_the_dead_are_replayed_together_and_others_are_left(webhooks: Webhooks) -> None:
    good = await webhooks.arrive("msg_good")
    dead = [await webhooks.arrive(f"msg_{number}", DEAD_BODY) for number in range(3)]

    dry = await webhooks.call("ReplayEvents", filter={"state": State.DEAD}, dry_run=True)
    untouched = await webhooks.listed(state=State.DEAD)
    wet = await webhooks.call("ReplayEvents", filter={"state": State.DEAD})

    assert dry == wet
    assert (wet.replayed_count, list(wet.events)) == (3, dead)
    assert list(reversed(untouched)) == dead
    for event in dead:
        again = await eventually(lambda event=event: _with_tries(webhooks, event.event_id, 2))
        assert again.state == State.DEAD
    assert (await webhooks.call("GetEvent", event_id=good.event_id)).tries == 1


async def test_more_events_than_a_batch_are_all_replayed(webhooks: Webhooks) -> None:
    for number in range(450):
        await webhooks.post(f"msg_{number}")
    await eventually(lambda: len(webhooks.generation.calls) == 450, 40)

    answer = await webhooks.call("ReplayEvents", filter={"received_from": {"seconds": 1}})

    assert (answer.replayed_count, len(answer.events)) == (450, 100)
    await eventually(lambda: sum(webhooks.generation.calls.values()) == 900, 40)


async def test_what_waits_for_its_next_try_is_tried_now(webhooks: Webhooks) -> None:
    event = await webhooks.arrive("msg_1", LATER_BODY)

    answer = await webhooks.call("ReplayEvents", filter={"webhook_ids": ["msg_1"]})

    assert answer.replayed_count == 1
    await eventually(lambda: sum(webhooks.generation.calls.values()) > event.tries)


async def test_a_dropped_event_is_gone_for_good_but_for_its_reason(webhooks: Webhooks) -> None:
    dead = await webhooks.arrive("msg_dead", DEAD_BODY)
    later = await webhooks.arrive("msg_later", LATER_BODY)
    good = await webhooks.arrive("msg_good")
    ids = [event.event_id for event in (dead, later, good)]

    first = await webhooks.call("DropEvents", event_ids=[*ids, ids[0]], reason="a test")
    second = await webhooks.call("DropEvents", event_ids=ids, reason="another reason")

    assert (first.dropped_count, second.dropped_count) == (3, 0)
    for event_id in ids:
        event = await webhooks.call("GetEvent", event_id=event_id)
        assert (event.state, event.drop_reason) == (State.DROPPED, "a test")
        assert (event.body, list(event.headers), event.body_gone) == (b"", [], True)
    calls = sum(webhooks.generation.calls.values())
    answer = await webhooks.call("ReplayEvents", filter={"event_ids": ids})
    assert (answer.replayed_count, answer.gone_count, list(answer.events)) == (0, 3, [])
    assert await webhooks.listed(state=State.DEAD) == []
    # A repetition of the provider's is recognized, and not delivered.
    assert await webhooks.post("msg_dead", DEAD_BODY) == 200
    await webhooks.arrive("msg_next")
    assert len(await webhooks.listed(webhook_ids=["msg_dead"])) == 1
    assert sum(webhooks.generation.calls.values()) == calls + 1


async def test_nothing_changes_when_one_is_not_there(webhooks: Webhooks) -> None:
    event = await webhooks.arrive("msg_1", DEAD_BODY)
    missing = str(int(event.event_id) + 1)
    ids = [event.event_id, missing]

    for call in (
        webhooks.call("DropEvents", event_ids=ids, reason="a test"),
        webhooks.call("ReplayEvents", filter={"event_ids": ids}),
        webhooks.call("ReplayEvents", filter={"event_ids": ids}, dry_run=True),
    ):
        assert await refusal(NotFound, call) == ("EVENT_NOT_FOUND", {"event_id": missing})
    call = webhooks.call("ReplayEvents", filter={"webhook_ids": ["msg_1", "msg_2"]})
    assert await refusal(NotFound, call) == ("EVENT_NOT_FOUND", {"webhook_id": "msg_2"})
    assert await webhooks.listed() == [event]


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_malformed_requests_are_refused_whole(webhooks: Webhooks) -> None:
    assert await bad_fields(webhooks.call("ReplayEvents")) == {"filter"}
    assert await bad_fields(webhooks.call("ReplayEvents", filter={}, dry_run=True)) == {"filter"}
    assert await bad_fields(webhooks.call("ReplayEvents", filter={"state": 9})) == {"filter.state"}
    assert await bad_fields(webhooks.call("DropEvents")) == {"event_ids", "reason"}
    for reason in ("x" * 201, "a\0b"):
        call = webhooks.call("DropEvents", event_ids=["msg_1"], reason=reason)
        assert await bad_fields(call) == {"event_ids[0]", "reason"}
    call = webhooks.call("DropEvents", event_ids=["1"] * 1001, reason="many")
    assert await bad_fields(call) == {"event_ids"}
