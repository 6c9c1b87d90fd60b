"""How many submissions the gate lets through."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.generation.gate import Gate, GatePolicy, admit, answered, pause, unanswered

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
POLICY = GatePolicy(rate_per_s=2.0, burst=4, in_flight_max=10)
FULL = Gate(tokens=4.0, refilled_at=NOW)


@pytest.mark.parametrize(
    ("in_flight", "wanted", "admitted"),
    [(0, 3, 3), (0, 4, 4), (0, 9, 4), (0, 0, 0), (8, 9, 2), (10, 9, 0), (50, 9, 0)],
)
def test_what_is_wanted_is_bounded_by_the_burst_and_by_what_is_in_flight(
    in_flight: int, wanted: int, admitted: int
) -> None:
    assert admit(FULL, POLICY, in_flight, wanted, NOW) == (
        admitted,
        replace(FULL, tokens=4.0 - admitted),
    )


@pytest.mark.parametrize(
    ("seconds", "admitted"), [(0, 0), (0.49, 0), (0.5, 1), (1, 2), (2, 4), (3600, 4)]
)
def test_tokens_come_back_at_the_rate_up_to_the_burst(seconds: float, admitted: int) -> None:
    empty = replace(FULL, tokens=0.0)

    assert admit(empty, POLICY, 0, 9, NOW + seconds * SECOND)[0] == admitted


def test_parts_of_a_token_are_not_lost_by_asking_often() -> None:
    gate, total = replace(FULL, tokens=0.0), 0
    for tick in range(1, 101):
        admitted, gate = admit(gate, POLICY, 0, 9, NOW + tick * 0.1 * SECOND)
        total += admitted

    assert total in (19, 20)  # 10 s at 2 a second, and the rounding of floats.


def test_a_paused_gate_lets_nothing_through_and_opens_one_by_one() -> None:
    paused = pause(FULL, NOW + 30 * SECOND, "HTTP 402")

    assert paused.why == "HTTP 402"
    assert admit(paused, POLICY, 0, 9, NOW + 29.999 * SECOND) == (0, paused)
    assert admit(paused, POLICY, 0, 9, NOW + 30 * SECOND)[0] == 0
    assert admit(paused, POLICY, 0, 9, NOW + 30.5 * SECOND)[0] == 1


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    long = pause(FULL, NOW + 60 * SECOND, "HTTP 402")

    both = pause(long, NOW + 10 * SECOND, "HTTP 429")
    longer = pause(both, NOW + 70 * SECOND, "HTTP 401")

    assert both == replace(long, why="HTTP 429")
    assert (longer.paused_until, longer.why) == (NOW + 70 * SECOND, "HTTP 401")


def test_a_pause_that_is_over_does_not_keep_a_new_one_from_beginning() -> None:
    over = pause(FULL, NOW - 60 * SECOND, "HTTP 429")

    again = pause(over, NOW + 10 * SECOND, "HTTP 429")

    assert again.paused_until == NOW + 10 * SECOND
    assert admit(again, POLICY, 0, 9, NOW)[0] == 0


def test_a_clock_that_is_set_back_does_not_refill_the_same_time_twice() -> None:
    gate, total = replace(FULL, tokens=0.0), 0
    for seconds in (0, 2, 0, 2, 0, 2):
        admitted, gate = admit(gate, POLICY, 0, 9, NOW + seconds * SECOND)
        total += admitted

    assert total == 4


STEPS = st.lists(
    st.tuples(
        st.floats(-1, 3),  # Seconds that pass.
        st.integers(0, 12),  # Wanted.
        st.integers(0, 12),  # In flight.
        st.sampled_from([None, None, None, 0.0, 1.0, 5.0]),  # Seconds to pause.
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(STEPS)
def test_never_more_than_the_burst_and_the_rate_go_through(
    steps: list[tuple[float, int, int, float | None]],
) -> None:
    gate, now, latest = FULL, NOW, NOW
    total, paused_until = 0, datetime.min.replace(tzinfo=UTC)
    for seconds, wanted, in_flight, pause_s in steps:
        now += seconds * SECOND
        latest = max(latest, now)
        if pause_s is not None:
            gate = pause(gate, now + pause_s * SECOND, "HTTP 429")
            paused_until = max(paused_until, now + pause_s * SECOND)
        admitted, gate = admit(gate, POLICY, in_flight, wanted, now)

        total += admitted
        assert 0 <= admitted <= min(wanted, max(POLICY.in_flight_max - in_flight, 0))
        assert not admitted or now >= paused_until
        assert gate.tokens >= 0
        allowed = POLICY.burst + POLICY.rate_per_s * (latest - NOW).total_seconds()
        assert total <= allowed + 1e-6


CLOSED = pause(FULL, NOW + 60 * SECOND, "no credit", probe=True)


def test_a_gate_that_probes_lets_one_through_at_a_time_until_one_is_answered() -> None:
    open_again = NOW + 70 * SECOND
    assert admit(CLOSED, POLICY, 0, 9, NOW + 59 * SECOND)[0] == 0

    first, probing = admit(CLOSED, POLICY, 0, 9, open_again)
    waiting, _ = admit(probing, POLICY, 1, 9, open_again + 59 * SECOND)
    second, _ = admit(probing, POLICY, 1, 9, open_again + POLICY.probe_s * SECOND)
    free = answered(probing, open_again + SECOND)
    all_of_them, _ = admit(free, POLICY, 0, 9, open_again + 5 * SECOND)

    assert (first, waiting, second, all_of_them) == (1, 0, 1, 4)
    assert (free.is_probing, free.troubles) == (False, 0)


def test_creates_without_an_answer_close_the_gate_for_longer_and_the_fifth_makes_it_probe() -> None:
    gate, pauses = FULL, []
    for _ in range(6):
        now = max(NOW, gate.paused_until or NOW)
        gate = unanswered(gate, now, 30.0, "connection refused")
        assert gate.paused_until is not None
        pauses.append((gate.paused_until - now).total_seconds())
        assert gate.is_probing == (gate.troubles >= 5)

    assert pauses == [0.5, 1, 2, 4, 30, 30]
    assert answered(gate, now).troubles == 0


def test_an_answer_does_not_shorten_a_pause_that_is_no_probe() -> None:
    throttled = pause(FULL, NOW + 10 * SECOND, "HTTP 429")

    assert answered(throttled, NOW).paused_until == NOW + 10 * SECOND


def test_the_answer_of_a_probe_says_when_the_next_one_goes() -> None:
    _, probing = admit(CLOSED, POLICY, 0, 9, NOW + 70 * SECOND)

    closed = unanswered(probing, NOW + 71 * SECOND, 30.0, "connection refused")

    assert closed.paused_until == NOW + 71.5 * SECOND
    assert closed.is_probing
