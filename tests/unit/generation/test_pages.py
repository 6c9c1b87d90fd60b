"""Tokens of pages, and what is no token of the list that it is brought for."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from reelworks.generation.v1 import generation_pb2

from services.generation.history import Cursor
from services.generation.pages import cursor_in, page_token
from services.runtime.errors import InvalidRequest

GENERATION_ID = "4b7f6a52-5b05-4e1f-9d9c-2f60ff0c5a11"
CURSOR = Cursor(datetime(2026, 7, 1, 12, 0, 0, 123_457, tzinfo=UTC), GENERATION_ID)
Kinds = generation_pb2.Generation.Kind
Statuses = generation_pb2.Generation.Status


def listing(**fields: object) -> generation_pb2.ListGenerationsRequest:
    good: dict[str, object] = {"user_id": "u"}
    return generation_pb2.ListGenerationsRequest(**(good | fields))  # type: ignore[arg-type]


def test_no_token_is_the_first_page() -> None:
    assert cursor_in(listing()) is None


@pytest.mark.parametrize(
    "created_at",
    [
        CURSOR.created_at,
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ],
)
def test_a_token_brings_back_its_place_to_the_microsecond(created_at: datetime) -> None:
    cursor = Cursor(created_at, GENERATION_ID)
    request = listing(status=Statuses.FAILED, kind=Kinds.TEXT_TO_VIDEO, page_size=3)

    token = page_token(request, cursor)
    again = listing(status=Statuses.FAILED, kind=Kinds.TEXT_TO_VIDEO, page_token=token)

    assert cursor_in(again) == cursor  # Another page size is the same filter.
    assert token.isascii()
    assert len(token) <= 64


@pytest.mark.parametrize(
    "other",
    [
        {"user_id": "v"},
        {"status": Statuses.COMPLETED},
        {"kind": Kinds.TEXT_TO_VIDEO},
        {"query": "fox"},
    ],
)
def test_a_token_of_another_filter_is_refused(other: dict[str, object]) -> None:
    token = page_token(listing(), CURSOR)

    with pytest.raises(InvalidRequest) as refused:
        cursor_in(listing(page_token=token, **other))

    assert [violation.field for violation in refused.value.violations] == ["page_token"]


def test_a_token_that_was_changed_anywhere_is_refused() -> None:
    token = base64.urlsafe_b64decode(page_token(listing(), CURSOR))

    for at in range(len(token)):
        for flip in (0x01, 0x80):
            changed = token[:at] + bytes([token[at] ^ flip]) + token[at + 1 :]
            with pytest.raises(InvalidRequest):
                cursor_in(listing(page_token=base64.urlsafe_b64encode(changed).decode()))


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "ж",
        "=" * 44,
        "AAAA",
        "/" * 44,
        base64.urlsafe_b64encode(bytes(32)).decode(),
        base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        page_token(listing(), CURSOR) + "AAAA",
        page_token(listing(), CURSOR)[:-4],
        "A" * 100_000,
    ],
    ids=lambda token: token[:12],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequest):
        cursor_in(listing(page_token=token))


def test_places_of_one_moment_have_different_tokens() -> None:
    other = Cursor(CURSOR.created_at, GENERATION_ID.replace("4b", "5b"))
    later = Cursor(CURSOR.created_at + timedelta(microseconds=1), GENERATION_ID)

    assert len({page_token(listing(), cursor) for cursor in (CURSOR, other, later)}) == 3
