"""ListGenerations."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.generation.state import Kind, Stage
from tests.contract.generation.harness import Kind as WireKind
from tests.contract.generation.harness import Service, Status, violations
from tests.integration.generation.harness import OUTPUT, REQUEST, USER, generation_in

BEGAN = datetime(2026, 5, 4, tzinfo=UTC)
TOKEN_RULE = {"page_token": "must be the next_page_token of the same request"}


async def fill(service: Service, number: int, **changes: Any) -> list[str]:
    """Ids of new generations, newest first."""
    generations = [
        generation_in(Stage.READY, created_at=BEGAN + timedelta(seconds=second), **changes)
        for second in range(number)
    ]
    await service.replica.insert(*generations)
    return [generation.generation_id for generation in reversed(generations)]


async def ids(service: Service, **fields: Any) -> tuple[list[str], str]:
    answer = await service.call("ListGenerations", **{"user_id": USER} | fields)
    return [generation.generation_id for generation in answer.generations], answer.next_page_token


async def test_a_user_without_generations_has_an_empty_list(service: Service) -> None:
    assert await ids(service) == ([], "")


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
async def test_tokens_lead_through_all_pages_newest_first(service: Service) -> None:
    expected = await fill(service, 7)
    await fill(service, 2, user_id="bob")

    first, token = await ids(service, page_size=3)
    newest = (await service.create()).generation_id
    second, last_token = await ids(service, page_size=3, page_token=token)
    again, _ = await ids(service, page_size=3, page_token=token)
    third, end = await ids(service, page_size=3, page_token=last_token)

    # What was created meanwhile shifts nothing; it is on the first page of the next reader.
    assert (first, second, third) == (expected[:3], expected[3:6], expected[6:])
    assert (again, end) == (second, "")
    assert (await ids(service, page_size=1))[0] == [newest]


async def test_a_page_is_cut_before_it_grows_too_large_to_be_received(service: Service) -> None:
    request = replace(REQUEST, prompt="雪" * 500, image_uri="https://example.com/" + "x" * 2000)
    expected = await fill(service, 900, request=request)

    found, token = await ids(service, page_size=1000)
    rest, end = await ids(service, page_size=1000, page_token=token)

    assert len(found) < 900
    assert (found + rest, end) == (expected, "")


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
async def test_a_list_can_be_of_those_whose_prompt_contains_a_text(service: Service) -> None:
    foxes = await fill(service, 3, request=replace(REQUEST, prompt="A Red Fox, 100% wild"))
    await fill(service, 2, request=replace(REQUEST, prompt="A grey wolf in the night"))

    first, token = await ids(service, query="rED fOX", page_size=2)
    second, end = await ids(service, query="rED fOX", page_size=2, page_token=token)

    assert (first + second, end) == (foxes, "")
    assert (await ids(service, query="100%"))[0] == foxes
    assert await ids(service, query="1%") == ([], "")
    assert await ids(service, query="dog") == ([], "")
    # A token is good for its own query only.
    refused = await violations(ids(service, query="wolf", page_token=token))
    assert refused == ("INVALID_FIELD", TOKEN_RULE)


@pytest.mark.parametrize(
    ("query", "rule"),
    [
        ("x" * 101, "must have at most 100 characters"),
        ("fox\0", "must not contain control characters"),
        ("fox\n", "must not contain control characters"),
    ],
)
async def test_a_query_that_cannot_be_looked_for_is_refused(
    service: Service, query: str, rule: str
) -> None:
    assert await violations(ids(service, query=query)) == ("INVALID_FIELD", {"query": rule})


async def test_deleted_and_refused_ones_are_not_listed_and_can_be_got(service: Service) -> None:
    shown = await fill(service, 1)
    deleted = generation_in(Stage.FAILED, deleted_at=BEGAN)
    refused = generation_in(Stage.REJECTED)
    await service.replica.insert(deleted, refused)

    assert (await ids(service))[0] == shown
    assert (await service.get(deleted.generation_id)).delete_time.ToDatetime(UTC) == BEGAN
    assert (await service.get(refused.generation_id)).status == Status.FAILED


async def test_a_page_that_ends_with_the_list_has_no_token(service: Service) -> None:
    expected = await fill(service, 3)

    assert await ids(service, page_size=3) == (expected, "")


async def test_a_page_has_fifty_unless_asked_otherwise(service: Service) -> None:
    expected = await fill(service, 51)

    page, token = await ids(service)
    everything, end = await ids(service, page_size=1000)

    assert page == expected[:50]
    assert token
    assert (everything, end) == (expected, "")


async def test_a_list_can_be_of_one_status_and_kind(service: Service) -> None:
    queued = generation_in(Stage.READY)
    done = generation_in(Stage.COMPLETED, output=OUTPUT)
    image = replace(REQUEST, kind=Kind.IMAGE_TO_VIDEO)
    from_image = generation_in(Stage.COMPLETED, output=OUTPUT, request=image)
    refused = generation_in(Stage.REJECTED)
    await service.replica.insert(queued, done, from_image, refused)

    completed, _ = await ids(service, status=Status.COMPLETED)
    of_images, _ = await ids(service, kind=WireKind.IMAGE_TO_VIDEO)
    both, _ = await ids(service, status=Status.QUEUED, kind=WireKind.TEXT_TO_VIDEO)
    failed, _ = await ids(service, status=Status.FAILED)

    assert set(completed) == {done.generation_id, from_image.generation_id}
    assert of_images == [from_image.generation_id]
    assert both == [queued.generation_id]
    assert failed == []


async def test_a_token_is_good_for_its_own_request_only(service: Service) -> None:
    await fill(service, 3)
    _, token = await ids(service, page_size=1)
    damaged = ("A" if token[0] != "A" else "B") + token[1:]

    for changes in (
        {"page_token": token, "user_id": "bob"},
        {"page_token": token, "status": Status.QUEUED},
        {"page_token": token, "kind": WireKind.TEXT_TO_VIDEO},
        {"page_token": damaged},
        {"page_token": token[:-4]},
        {"page_token": "no token"},
        {"page_token": "é"},
    ):
        assert await violations(ids(service, page_size=1, **changes)) == (
            "INVALID_FIELD",
            TOKEN_RULE,
        )


async def test_bad_fields_are_all_named(service: Service) -> None:
    call = ids(service, user_id="a b", page_size=1001, status=99, kind=99)

    reason, rules = await violations(call)

    assert reason == "INVALID_FIELD"
    assert set(rules) == {"user_id", "page_size", "status", "kind"}
    assert rules["page_size"] == "must be between 0 and 1000"
    assert set((await violations(ids(service, page_size=-1)))[1]) == {"page_size"}
