import pytest

from services.simulator.limits import Limits
from services.simulator.switches import Switches


def granted(limits: Limits, is_create: bool, switches: Switches, count: int, now: float) -> int:
    return sum(limits.take("one", is_create, switches, now).granted for _ in range(count))


@pytest.mark.parametrize(
    ("is_create", "switches", "at_once", "in_the_next_10_s"),
    [
        (True, Switches(), 600, 100),
        (False, Switches(), 3000, 500),
        (True, Switches(low_credit=True), 1, 1),
        (False, Switches(low_credit=True), 3000, 500),
        (True, Switches(creates_per_minute=60), 60, 10),
    ],
)
def test_a_burst_is_followed_by_an_even_flow(
    is_create: bool, switches: Switches, at_once: int, in_the_next_10_s: int
) -> None:
    limits = Limits()

    assert granted(limits, is_create, switches, at_once + 50, now=1000.0) == at_once
    assert granted(limits, is_create, switches, at_once + 50, now=1010.0) == in_the_next_10_s


def test_each_account_and_kind_of_call_has_limits_of_its_own() -> None:
    limits, switches = Limits(), Switches(creates_per_minute=1, calls_per_minute=1)
    calls = [("one", True), ("one", False), ("two", True), ("one", True)]

    assert [limits.take(*call, switches, 0.0).granted for call in calls] == [True] * 3 + [False]


def test_a_permit_tells_what_is_left_and_when_to_come_again() -> None:
    limits, switches = Limits(), Switches(low_credit=True)

    first, second = (limits.take("one", True, switches, now) for now in (100.0, 103.0))

    assert (first.granted, first.remaining, first.reset_s) == (True, 0, 10)
    assert (second.granted, second.remaining, second.retry_after_s) == (False, 0, 7)
    assert limits.take("one", True, switches, 110.0).granted


def test_a_changed_limit_begins_with_a_whole_burst() -> None:
    limits = Limits()
    granted(limits, True, Switches(low_credit=True), 5, now=0.0)

    assert granted(limits, True, Switches(), 700, now=0.0) == 600
