"""When videos will be there, going by how long the like took."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.generation.catalog import load_catalog
from services.generation.estimates import (
    Eta,
    Line,
    Run,
    RunTimes,
    Spread,
    eta_of,
    eta_of_new,
    mean_provider_s,
    run_times,
)
from services.generation.gate import GatePolicy
from services.generation.state import Generation, Stage
from tests.integration.generation.harness import generation_in

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
KEY = ("t2v-1.3B", "480p")
"""What the generations of the harness ask for."""
TIMES = RunTimes(Spread(30, 60, 70), Spread(20, 40, 45), Spread(4, 8, 9))
LINE = Line(
    now=NOW,
    ready=4,
    positions={"first": 1, "second": 2, "third": 3, "fourth": 4},
    in_flight=0,
    paused_until=None,
    policy=GatePolicy(rate_per_s=2.0, burst=1, in_flight_max=10),
    provider_s=30.0,
    times={KEY: TIMES},
)
CATALOG = load_catalog()


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def made(stage: Stage, **changes: object) -> Generation:
    return generation_in(stage, created_at=ago(100), **changes)


def expected(likely_s: float, latest_s: float) -> Eta:
    return Eta(NOW + timedelta(seconds=likely_s), NOW + timedelta(seconds=latest_s))


def run(seconds: float, model: str = KEY[0], resolution: str = KEY[1]) -> Run:
    return Run(model, resolution, seconds - 1, seconds, None, 1.0)


@pytest.mark.parametrize(
    ("generation", "eta"),
    [
        # Behind the four, and submitted at two a second.
        (made(Stage.RESERVING), expected(2 + 30, 2 + 60)),
        (made(Stage.READY, generation_id="first"), expected(30, 60)),
        (made(Stage.READY, generation_id="third"), expected(1 + 30, 1 + 60)),
        (made(Stage.READY, generation_id="later"), expected(2 + 30, 2 + 60)),
        (made(Stage.SUBMITTING, stage_since=ago(10)), expected(20, 50)),
        (made(Stage.SUBMITTING, stage_since=ago(10), uncertain_since=ago(1)), None),
        # The provider has it and has not begun.
        (made(Stage.RUNNING, submitted_at=ago(10)), expected(20, 50)),
        (made(Stage.RUNNING, submitted_at=ago(50), started_at=ago(10)), expected(10, 30)),
        # Longer than half took: half of the rest.
        (made(Stage.RUNNING, submitted_at=ago(50), started_at=ago(30)), expected(5, 10)),
        # Longer than nine of ten took.
        (made(Stage.RUNNING, submitted_at=ago(50), started_at=ago(40)), None),
        (made(Stage.ARCHIVING, provider_ended_at=ago(1)), expected(3, 7)),
        (made(Stage.COMMITTING, provider_ended_at=ago(9)), None),
        (made(Stage.CANCELING, submitted_at=ago(10)), None),
        (made(Stage.RUNNING, submitted_at=ago(10), refund_percent=100), None),
        (made(Stage.REFUNDING), None),
        (made(Stage.PARKED), None),
        (made(Stage.COMPLETED), None),
        (made(Stage.FAILED), None),
        (made(Stage.CANCELED), None),
        (made(Stage.REJECTED), None),
    ],
    ids=lambda value: value.stage if isinstance(value, Generation) else "",
)
def test_each_stage_is_measured_from_where_it_began(generation: Generation, eta: Eta) -> None:
    assert eta_of(generation, LINE) == eta


@pytest.mark.parametrize(
    ("percent", "started_s", "news_s", "eta"),
    [
        # Too little is done: as usual.
        (9, 10, 0, expected(10, 30)),
        # By its progress 10 s and 4 s more, at most twice 10 s and 8 s more; half of either.
        (50, 10, 0, expected((10 + 14) / 2, (30 + 28) / 2)),
        # Since its last news, of 5 s ago, it went on.
        (50, 15, 5, expected((5 + 9) / 2, (25 + 23) / 2)),
        # Nearly done, in a tenth of the usual time.
        (90, 2, 0, expected(1.8 + 3.8, 3.8 + 7.6)),
        # Longer than nine of ten took: only its progress speaks.
        (80, 60, 0, expected(15 + 4, 30 + 8)),
        (99, 100, 60, None),
    ],
)
def test_its_own_progress_corrects_what_is_usual(
    percent: int, started_s: float, news_s: float, eta: Eta | None
) -> None:
    running = made(
        Stage.RUNNING,
        submitted_at=ago(started_s + 1),
        started_at=ago(started_s),
        updated_at=ago(news_s),
        progress_percent=percent,
    )

    found = eta_of(running, LINE)

    if eta is None or found is None:
        assert found == eta
    else:
        for is_, was in ((found.likely_at, eta.likely_at), (found.latest_at, eta.latest_at)):
            assert abs(is_ - was) < timedelta(milliseconds=1)


def test_what_is_no_longer_offered_has_no_estimate() -> None:
    assert eta_of(made(Stage.READY), replace(LINE, times={})) is None
    assert eta_of_new("t2v-9B", "480p", LINE) is None


def test_a_new_one_comes_behind_all_that_wait() -> None:
    assert eta_of_new(*KEY, LINE) == expected(2 + 30, 2 + 60)


def test_places_are_those_of_the_queue() -> None:
    places = {
        stage: LINE.position(made(stage, generation_id="second"))
        for stage in (Stage.READY, Stage.RESERVING, Stage.SUBMITTING, Stage.PARKED, Stage.FAILED)
    }

    assert places.pop(Stage.READY) == 2
    assert set(places.values()) == {None}
    assert LINE.position(made(Stage.READY, generation_id="later")) == 5


def test_a_full_provider_is_waited_for() -> None:
    full = replace(LINE, in_flight=10)

    # Each of the ten places becomes free every 30 s, so one does every 3 s.
    assert [full.wait_s(place) for place in (1, 2, 3)] == [3, 6, 9]
    assert [LINE.wait_s(place) for place in (1, 2, 10)] == [0, 0.5, 4.5]
    assert LINE.wait_s(110) == 300
    assert full.per_s() == pytest.approx(1 / 3)
    assert replace(LINE, provider_s=1).per_s() == 2


def test_a_pause_of_submissions_is_waited_for() -> None:
    paused = replace(LINE, paused_until=NOW + timedelta(seconds=60))
    over = replace(LINE, paused_until=ago(60))

    assert paused.wait_s(1) == 60
    assert over.wait_s(1) == 0
    assert eta_of(made(Stage.READY, generation_id="first"), paused) == expected(90, 120)


def test_the_catalog_speaks_until_enough_was_measured() -> None:
    few = run_times(CATALOG, [run(100)] * 9)
    enough = run_times(CATALOG, [run(100)] * 10)

    said = {key: times.from_submit.p50_s - 2 for key, times in few.items()}
    assert said == {
        ("t2v-1.3B", "480p"): 20,
        ("t2v-14B", "480p"): 39,
        ("t2v-14B", "720p"): 150,
        ("i2v-14B", "480p"): 39,
        ("i2v-14B", "720p"): 150,
    }
    assert enough[KEY].from_submit == Spread(100, 100, 100)
    assert enough[KEY].from_start == few[KEY].from_start
    assert enough["t2v-14B", "480p"] == few["t2v-14B", "480p"]
    assert mean_provider_s(CATALOG, [run(100)] * 9) == pytest.approx(79.6)
    assert mean_provider_s(CATALOG, [run(100)] * 10) == 99


def test_a_provider_that_is_faster_than_the_catalog_says_is_expected_to_be() -> None:
    said = run_times(load_catalog(speed=10), [])

    assert said["t2v-14B", "480p"].from_submit == Spread(3.9 + 2, 2 * 5.9, 2 * 5.9)


def test_spreads_are_of_the_measured() -> None:
    times = run_times(CATALOG, [run(seconds) for seconds in range(100, 0, -1)])[KEY]

    assert times.from_submit == Spread(50, 90, 95)


@given(
    seconds=st.lists(st.floats(-10, 10_000), max_size=30),
    elapsed_s=st.floats(0, 20_000),
    place=st.integers(1, 100_000),
    in_flight=st.integers(0, 200),
    stage=st.sampled_from(Stage),
    percent=st.integers(0, 100),
)
def test_an_estimate_is_never_in_the_past_and_never_upside_down(
    seconds: list[float], elapsed_s: float, place: int, in_flight: int, stage: Stage, percent: int
) -> None:
    line = replace(
        LINE,
        times=run_times(CATALOG, [run(one) for one in seconds]),
        positions={"x": place},
        ready=place,
        in_flight=in_flight,
        provider_s=mean_provider_s(CATALOG, [run(abs(one)) for one in seconds]),
    )
    since = ago(elapsed_s)
    generation = made(
        stage,
        generation_id="x",
        stage_since=since,
        submitted_at=since,
        started_at=since,
        updated_at=ago(elapsed_s / 2),
        progress_percent=percent,
        provider_ended_at=since,
    )

    eta = eta_of(generation, line)

    assert eta is None or NOW <= eta.likely_at <= eta.latest_at
