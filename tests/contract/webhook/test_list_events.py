"""ListEvents and GetEvent."""

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf import timestamp_pb2

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
from tests.integration.webhook.harness import good_query


def ids(events: list[Any]) -> list[str]:
    return [event.webhook_id for event in events]


async def test_an_event_is_shown_as_it_came_and_as_it_stands(webhooks: Webhooks) -> None:
    query = good_query(attempt=7)
    before = datetime.now(UTC)

    listed = await webhooks.arrive("msg_1", GOOD_BODY, query)
    event = await webhooks.call("GetEvent", event_id=listed.event_id)

    assert (event.state, event.disposition, event.tries) == (State.DELIVERED, "APPLIED", 1)
    assert (f"g={event.generation_id}", event.attempt) == (query.split("&")[0], 7)
    assert event.body == GOOD_BODY
    assert event.body_size_bytes == len(GOOD_BODY)
    assert event.body_sha256 == hashlib.sha256(GOOD_BODY).hexdigest()
    assert (event.headers[0].name, event.headers[0].value) == ("webhook-id", "msg_1")
    times = [event.receive_time, event.store_time, event.deliver_time]
    assert [before, *(time.ToDatetime(UTC) for time in times)] == sorted(
        [before, *(time.ToDatetime(UTC) for time in times)]
    )
    assert not event.HasField("due_time")
    assert (listed.body, list(listed.headers)) == (b"", [])
    event.ClearField("body")
    event.ClearField("headers")
    assert listed == event


async def test_what_generation_does_not_take_says_why(webhooks: Webhooks) -> None:
    dead = await webhooks.arrive("msg_dead", DEAD_BODY)
    later = await webhooks.arrive("msg_later", LATER_BODY)

    assert (dead.state, dead.disposition) == (State.DEAD, "UNREADABLE")
    assert later.state == State.PENDING
    assert later.last_error.startswith("PERMISSION_DENIED")
    assert later.HasField("due_time")


async def test_state_generation_ids_and_time_narrow_the_list(webhooks: Webhooks) -> None:
    query = good_query()
    generation_id = query.split("&")[0].removeprefix("g=")
    first = await webhooks.arrive("msg_1", GOOD_BODY, query)
    dead = await webhooks.arrive("msg_2", DEAD_BODY)
    await webhooks.arrive("msg_2", GOOD_BODY, until=State.DELIVERED)

    assert ids(await webhooks.listed()) == ["msg_2", "msg_2", "msg_1"]
    assert ids(await webhooks.listed(state=State.DEAD)) == ["msg_2"]
    assert ids(await webhooks.listed(state=State.DROPPED)) == []
    assert ids(await webhooks.listed(generation_id=generation_id)) == ["msg_1"]
    assert len(await webhooks.listed(webhook_ids=["msg_2"])) == 2
    assert ids(await webhooks.listed(event_ids=[first.event_id])) == ["msg_1"]
    assert ids(await webhooks.listed(event_ids=[first.event_id], state=State.DEAD)) == []
    both = await webhooks.listed(event_ids=[first.event_id, dead.event_id], webhook_ids=["msg_2"])
    assert ids(both) == ["msg_2", "msg_2", "msg_1"]
    assert ids(await webhooks.listed(received_before=dead.receive_time)) == ["msg_1"]
    assert len(await webhooks.listed(received_from=dead.receive_time)) == 2


async def test_pages_are_stable_while_others_arrive(webhooks: Webhooks) -> None:
    for number in range(5):
        await webhooks.arrive(f"msg_{number}")

    pages, token = [], ""
    for number in range(3):
        page = await webhooks.call("ListEvents", page_size=2, page_token=token)
        pages.append(ids(page.events))
        token = page.next_page_token
        await webhooks.arrive(f"msg_later{number}")

    assert pages == [["msg_4", "msg_3"], ["msg_2", "msg_1"], ["msg_0"]]
    assert token == ""


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_a_token_is_good_for_its_own_filter_only(webhooks: Webhooks) -> None:
    for number in range(2):
        await webhooks.arrive(f"msg_{number}")
    page = await webhooks.call("ListEvents", page_size=1)
    token = page.next_page_token

    for fields in (
        {"filter": {"state": State.DEAD}, "page_token": token},
        {"filter": {"webhook_ids": ["msg_0"]}, "page_token": token},
        {"page_token": token[:-4]},
        {"page_token": token + "===="},
        {"page_token": "ü"},
    ):
        assert await bad_fields(webhooks.call("ListEvents", **fields)) == {"page_token"}, fields


@pytest.mark.parametrize("backend", ["sqlite"])
async def test_malformed_fields_are_all_named(webhooks: Webhooks) -> None:
    for seconds in (2**60, -(2**60)):
        call = webhooks.call(
            "ListEvents",
            filter={
                "event_ids": ["1", "x", "0", "9" * 19],
                "webhook_ids": ["a b", ""],
                "generation_id": "me",
                "state": 99,
                "received_from": timestamp_pb2.Timestamp(seconds=seconds),
                "received_before": timestamp_pb2.Timestamp(seconds=seconds),
            },
            page_size=1001,
            page_token="x",
        )
        assert await bad_fields(call) == {
            *(f"filter.event_ids[{place}]" for place in (1, 2, 3)),
            *(f"filter.webhook_ids[{place}]" for place in (0, 1)),
            "filter.generation_id",
            "filter.state",
            "filter.received_from",
            "filter.received_before",
            "page_size",
            "page_token",
        }
    moment = timestamp_pb2.Timestamp(seconds=5)
    call = webhooks.call("ListEvents", filter={"received_from": moment, "received_before": moment})
    assert await bad_fields(call) == {"filter.received_before"}
    assert await bad_fields(webhooks.call("GetEvent", event_id="msg_1")) == {"event_id"}
    assert await bad_fields(webhooks.call("GetEvent")) == {"event_id"}


async def test_an_event_that_is_not_there_is_named(webhooks: Webhooks) -> None:
    for event_id in ("1", "9" * 18):
        reason = await refusal(NotFound, webhooks.call("GetEvent", event_id=event_id))
        assert reason == ("EVENT_NOT_FOUND", {"event_id": event_id})
