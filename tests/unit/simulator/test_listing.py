from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import parse_qsl

import pytest

from services.simulator.listing import Page, page_of
from services.simulator.plan import Ending, Plan
from services.simulator.prediction import Prediction
from services.simulator.problems import Problem


def prediction(number: int) -> Prediction:
    plan = Plan(f"id{number}", 4.0, 40.0, Ending.SUCCESS, silent=False, seed=1, jitter_s=0.0)
    return Prediction(
        id=plan.prediction_id,
        account="one",
        number=number,
        model="owner/name",
        version_id="v",
        shown_version="hidden",
        input={},
        request="",
        prefer=None,
        webhook=None,
        events=frozenset(),
        created_at=1_700_000_000.0 + number,
        deadline=None,
        plan=plan,
    )


NEWEST_FIRST = [prediction(number) for number in range(250, 0, -1)]


def numbers(page: Page) -> list[int]:
    return [one.number for one in page.predictions]


def follow(query: str | None) -> Page:
    assert query is not None
    return page_of(NEWEST_FIRST, dict(parse_qsl(query)))


def moment(number: int) -> str:
    return datetime.fromtimestamp(1_700_000_000 + number, UTC).isoformat()


def test_three_pages_forth_and_back() -> None:
    first = page_of(NEWEST_FIRST, {})
    second = follow(first.next_query)
    third = follow(second.next_query)

    assert numbers(first) == list(range(250, 150, -1))
    assert numbers(second) == list(range(150, 50, -1))
    assert numbers(third) == list(range(50, 0, -1))
    assert (first.previous_query, third.next_query) == (None, None)
    assert numbers(follow(third.previous_query)) == numbers(second)
    assert numbers(follow(second.previous_query)) == numbers(first)


def test_a_page_does_not_move_when_newer_ones_arrive() -> None:
    query = dict(parse_qsl(page_of(NEWEST_FIRST, {}).next_query or ""))

    later = page_of([prediction(251), *NEWEST_FIRST], query)

    assert numbers(later) == list(range(150, 50, -1))


def test_the_beginning_of_a_time_range_is_in_and_its_end_is_out() -> None:
    page = page_of(NEWEST_FIRST, {"created_after": moment(10), "created_before": moment(13)})

    assert numbers(page) == [12, 11, 10]


def test_filters_stay_on_the_following_pages() -> None:
    first = page_of(NEWEST_FIRST, {"created_after": moment(101)})
    second = follow(first.next_query)

    assert numbers(second) == list(range(150, 100, -1))
    assert second.next_query is None


def test_nothing_here_was_made_on_the_website() -> None:
    assert numbers(page_of(NEWEST_FIRST, {"source": "web"})) == []
    assert len(numbers(page_of(NEWEST_FIRST, {"source": "api"}))) == 100


@pytest.mark.parametrize(
    "query", [{"cursor": "?"}, {"cursor": "eD0x"}, {"created_after": "yesterday"}]
)
def test_a_senseless_query_is_refused(query: Mapping[str, str]) -> None:
    with pytest.raises(Problem) as caught:
        page_of(NEWEST_FIRST, query)

    assert caught.value.status == 400


@pytest.mark.parametrize(("shift", "first_of_next"), [(-1, 151), (0, 150), (1, 149)])
def test_a_page_can_begin_too_early_or_too_late(
    shift: Literal[-1, 0, 1], first_of_next: int
) -> None:
    page = page_of(NEWEST_FIRST, {}, next_shift=shift)

    assert numbers(follow(page.next_query))[0] == first_of_next
    assert numbers(page)[-1] == 151


def test_moments_that_were_shown_wrong_find_what_they_were_shown_for() -> None:
    shown = datetime.fromtimestamp(1_700_000_000 + 240 + 300, UTC).isoformat()

    page = page_of(NEWEST_FIRST, {"created_after": shown}, skew_s=300)

    assert numbers(page) == list(range(250, 239, -1))
