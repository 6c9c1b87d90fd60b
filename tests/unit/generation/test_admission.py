"""How much is taken on."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.generation.admission import Admitted, BacklogFull, TooManyUnfinished, judge
from services.generation.estimates import Line, RunTimes, Spread
from services.generation.gate import GatePolicy

KEY = ("t2v-14B", "480p")
TIMES = RunTimes(Spread(30, 60, 100), Spread(20, 40, 45), Spread(4, 8, 9))
# One in 3 s is worked off, since ten places are free again after 30 s each.
LINE = Line(
    now=datetime(2026, 7, 1, 12, tzinfo=UTC),
    ready=0,
    positions={},
    in_flight=10,
    paused_until=None,
    policy=GatePolicy(rate_per_s=2.0, burst=1, in_flight_max=10),
    provider_s=30.0,
    times={KEY: TIMES},
)


@pytest.mark.parametrize(
    ("ready", "deadline_s", "admission"),
    [
        (0, 700, Admitted()),
        (0, 1, Admitted()),
        (200, 700, Admitted()),
        (201, 700, BacklogFull(3)),
        (200, 699, BacklogFull(1)),
        (10_000, 700, BacklogFull(60)),
        (1, 1, BacklogFull(3)),
    ],
)
def test_a_backlog_that_cannot_be_worked_off_in_time_is_full(
    ready: int, deadline_s: float, admission: object
) -> None:
    assert judge(replace(LINE, ready=ready), KEY, 0, 20, deadline_s) == admission


def test_the_gate_s_rate_limits_too() -> None:
    quick = replace(LINE, provider_s=1.0, ready=1201)

    assert judge(quick, KEY, 0, 20, 700) == BacklogFull(1)
    assert judge(replace(quick, ready=1200), KEY, 0, 20, 700) == Admitted()


def test_a_user_has_so_many_unfinished_ones_at_the_most() -> None:
    assert judge(LINE, KEY, 19, 20, 700) == Admitted()
    assert judge(LINE, KEY, 20, 20, 700) == TooManyUnfinished(20)
    # Whose own are too many is told so, even if the backlog is full as well.
    assert judge(replace(LINE, ready=10_000), KEY, 20, 20, 700) == TooManyUnfinished(20)


@given(
    ready=st.integers(0, 1_000_000),
    provider_s=st.floats(0, 10_000),
    rate_per_s=st.floats(0.001, 10),
    in_flight_max=st.integers(1, 1000),
    deadline_s=st.floats(1, 100_000),
)
def test_a_smaller_backlog_is_never_refused_where_a_greater_one_is_not(
    ready: int, provider_s: float, rate_per_s: float, in_flight_max: int, deadline_s: float
) -> None:
    policy = GatePolicy(rate_per_s, 1, in_flight_max)
    line = replace(LINE, provider_s=provider_s, policy=policy)

    more = judge(replace(line, ready=ready + 1), KEY, 0, 1, deadline_s)
    less = judge(replace(line, ready=ready), KEY, 0, 1, deadline_s)

    if isinstance(more, Admitted):
        assert less == Admitted()
    for admission in (more, less):
        if not isinstance(admission, Admitted):
            assert isinstance(admission, BacklogFull)
            assert 1 <= admission.retry_after_s <= 60
