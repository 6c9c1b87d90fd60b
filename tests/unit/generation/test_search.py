"""Which prediction of the provider's list a lost create made."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.generation.prediction import Prediction
from services.generation.search import (
    Lost,
    Searched,
    is_absent,
    match,
    next_search,
)
from services.generation.timing import Timing

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
TIMING = Timing()
INPUT = {"prompt": "a red fox runs through fresh snow", "seed": 7}
LOST = Lost("g1", 2, INPUT, send_before=NOW, settled_at=NOW)
OTHER = Lost("g2", 1, INPUT | {"seed": 8}, send_before=NOW, settled_at=NOW)


def item(
    job_id: str, input_: Mapping[str, Any] = INPUT, query: str | None = None, **fields: Any
) -> Prediction:
    return Prediction(job_id, "processing", input=input_, callback_query=query, **fields)


def proven(query: str) -> tuple[str, int] | None:
    """Reads `g1/2` as an address of ours would be read; anything else proves nothing."""
    generation_id, _, attempt = query.partition("/")
    return (generation_id, int(attempt)) if attempt.isdigit() else None


def found(
    listed: Sequence[Prediction],
    lost: Sequence[Lost] = (LOST,),
    known: Sequence[str] = (),
    rivals: Sequence[Mapping[str, Any]] = (),
) -> list[str | None]:
    searched = match(lost, listed, known, rivals, proven)
    return [one.found.job_id if one.found else None for one in searched]


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([item("a", query="g1/2")], "a"),
        ([item("a", query="g1/2", input_={})], "a"),
        # Defaults may have been added, and the address not be echoed.
        ([item("a", INPUT | {"sample_steps": 30})], "a"),
        # It reports to somebody else, with whom we may share the account.
        ([item("a", INPUT, query="foreign")], None),
        ([item("a", INPUT | {"seed": 8})], None),
        ([item("a", {"seed": 7})], None),
        ([item("a", {}, data_removed=True)], None),
        # It is proven to be another attempt's, whatever its input.
        ([item("a", INPUT, query="g1/1")], None),
        ([item("a", INPUT, query="g2/2")], None),
        # Newest first: of two the older is ours.
        ([item("b"), item("a")], "a"),
        ([item("b", query="g1/2"), item("a")], "b"),
        ([], None),
    ],
)
def test_a_lost_create_is_known_by_its_address_or_by_its_input(
    listed: list[Prediction], expected: str | None
) -> None:
    assert found(listed) == [expected]


def test_what_is_booked_already_is_nobody_else_s() -> None:
    assert found([item("b"), item("a")], known=["a"]) == ["b"]


def test_each_of_several_finds_its_own() -> None:
    listed = [item("b", OTHER.input), item("c", {"seed": 9}), item("a")]

    assert found(listed, [LOST, OTHER]) == ["a", "b"]


@pytest.mark.parametrize(
    ("lost", "rivals"),
    [([LOST, replace(OTHER, input=INPUT)], []), ([LOST], [INPUT])],
    ids=["both lost", "the other under way"],
)
def test_of_equal_inputs_only_the_address_tells_and_absence_is_not_proved(
    lost: list[Lost], rivals: list[Mapping[str, Any]]
) -> None:
    unclear = match(lost, [item("a")], [], rivals, proven)

    assert [one.found for one in unclear] == [None] * len(lost)
    assert all(one.is_blocked for one in unclear)
    assert found([item("a", query="g1/2")], lost, rivals=rivals)[0] == "a"


def test_two_videos_of_different_images_of_ours_are_not_told_apart() -> None:
    first, second = INPUT | {"image": "upload:a"}, INPUT | {"image": "upload:b"}
    listed = [item("x", INPUT | {"image": "https://storage.example/b"})]

    assert found(listed, [replace(LOST, input=first)], rivals=[second]) == [None]


def test_an_image_of_ours_is_sent_under_an_address_that_is_not_compared() -> None:
    sent = INPUT | {"image": "upload:6f1c"}
    echoed = INPUT | {"image": "https://storage.example/6f1c?signature=x"}

    assert found([item("a", echoed)], [replace(LOST, input=sent)]) == ["a"]


LATE = NOW + timedelta(seconds=TIMING.provider_call_s + TIMING.search_grace_s)


@pytest.mark.parametrize(
    ("clean_before", "complete", "begun_at", "expected"),
    [
        (1, True, LATE, (True, 2)),
        (5, True, LATE, (True, 6)),
        (0, True, LATE, (False, 1)),
        (1, True, LATE - timedelta(microseconds=1), (False, 2)),
        (1, False, LATE, (False, 0)),
    ],
)
def test_absence_takes_two_complete_searches_the_later_after_the_grace(
    clean_before: int, complete: bool, begun_at: datetime, expected: tuple[bool, int]
) -> None:
    searched = Searched(replace(LOST, clean_searches=clean_before), None)

    assert is_absent(searched, complete=complete, begun_at=begun_at, timing=TIMING) == expected


def test_a_candidate_that_may_be_ours_blocks_absence() -> None:
    lost = replace(LOST, clean_searches=3)
    blocked = Searched(lost, None, is_blocked=True)
    there = Searched(lost, item("a"))

    for searched in (blocked, there):
        assert is_absent(searched, complete=True, begun_at=LATE, timing=TIMING) == (False, 0)


def test_searches_come_ever_more_slowly_and_end_after_an_hour() -> None:
    now, times = NOW, []
    for searches in range(1, 40):
        at = next_search(replace(LOST, searches=searches), now, TIMING)
        if at is None:
            break
        assert at > now
        now = at
        times.append((at - NOW).total_seconds())

    assert times[:4] == [15, 30, 60, 120]
    assert times[-1] <= TIMING.search_limit_s + TIMING.search_delays_s[-1]
    assert len(times) < 39
