"""Times are said in the unit that people would take."""

from datetime import timedelta

import pytest

from services.cli.durations import duration, time_left
from services.client.generations import Eta
from tests.unit.cli.samples import NOON


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (42.4, "42 s"),
        (99, "99 s"),
        (100, "2 min"),
        (5_999, "100 min"),
        (7_200, "2 h"),
        (172_799, "48 h"),
        (259_200, "3 d"),
    ],
)
def test_a_length_of_time_has_one_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("likely_s", "latest_s", "text"),
    [
        (40, 120, "in 40 s to 2 min"),
        (290, 310, "in about 5 min"),
        (-5, 30, "within 30 s"),
        (-60, -1, "any moment"),
    ],
)
def test_what_is_left_is_a_range(likely_s: float, latest_s: float, text: str) -> None:
    eta = Eta(NOON + timedelta(seconds=likely_s), NOON + timedelta(seconds=latest_s))

    assert time_left(eta, NOON) == text
