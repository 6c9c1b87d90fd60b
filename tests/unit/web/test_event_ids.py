"""Ids of events are read as they were written, and nothing else is taken for one."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.web.event_ids import AGE_MAX, SKEW, Position, format_position, parse_position
from tests.unit.web.mail import NOW

PAST = st.timedeltas(timedelta(0), AGE_MAX).map(lambda age: NOW - age)


def test_an_id_has_microseconds_and_a_version() -> None:
    moment = datetime(2026, 7, 1, 11, 59, 59, 999_999, tzinfo=UTC)

    assert format_position(Position(moment, 7)) == "1782907199999999.7"


@given(updated_at=PAST, balance_version=st.integers(0, 10**18 - 1))
def test_what_was_written_is_read_again(updated_at: datetime, balance_version: int) -> None:
    position = Position(updated_at, balance_version)

    assert parse_position(format_position(position), NOW) == position


@pytest.mark.parametrize(
    "event_id",
    [
        *("", ".", "1", "1.", ".1", "1.2.3", "a.b", "1,2", "-1.2", "1.-2", "+1.2", " 1.2", "1.2\n"),
        *(
            "1e3.4",
            "1_0.2",
            "0x1.2",
            "\u0661.\u0662",
            "1.2\0",
            "9" * 18 + ".1",
            "1." + "9" * 19,
            "9" * 9999,
        ),
    ],
)
def test_what_is_none_of_ours_is_not_read(event_id: str) -> None:
    assert parse_position(event_id, NOW) is None


@given(event_id=st.text())
def test_no_text_is_too_odd(event_id: str) -> None:
    position = parse_position(event_id, NOW)

    if position is not None:
        assert position.updated_at <= NOW + SKEW


def test_what_is_too_long_ago_is_no_place_to_go_on_from() -> None:
    at, before = NOW - AGE_MAX, NOW - AGE_MAX - timedelta(microseconds=1)

    assert parse_position(format_position(Position(at, 1)), NOW) == Position(at, 1)
    assert parse_position(format_position(Position(before, 1)), NOW) is None
    assert parse_position("0.0", NOW) is None


def test_the_future_is_no_place_to_go_on_from_but_for_clocks_that_differ() -> None:
    near, far = NOW + SKEW, NOW + SKEW + timedelta(microseconds=1)

    assert parse_position(format_position(Position(near, 1)), NOW) == Position(near, 1)
    assert parse_position(format_position(Position(far, 1)), NOW) is None
