import math
from dataclasses import replace

import pytest

from services.simulator.plan import Ending, Plan
from services.simulator.prediction import (
    FINAL,
    Attempt,
    Prediction,
    Status,
    Step,
    as_of,
    finish,
    is_charged,
    next_step,
    remove_data,
    run_elapsed_s,
    start,
    with_attempt,
)

CREATED = 1000.0
BOOT_S = 4.0
RUN_S = 40.0


def prediction(
    ending: Ending = Ending.SUCCESS, deadline: float | None = None, run_s: float = RUN_S
) -> Prediction:
    plan = Plan("a" * 26, BOOT_S, run_s, ending, silent=False, seed=1, jitter_s=0.02)
    return Prediction(
        id=plan.prediction_id,
        account="one",
        number=1,
        model="owner/name",
        version_id="v",
        shown_version="hidden",
        input={"prompt": "a lake"},
        request='{"input":{"prompt":"a lake"}}',
        prefer=None,
        webhook=None,
        events=frozenset(),
        created_at=CREATED,
        deadline=deadline,
        plan=plan,
    )


@pytest.mark.parametrize(
    ("ending", "deadline", "running", "after_s", "step"),
    [
        (Ending.SUCCESS, None, False, 4, Step.START),
        (Ending.SUCCESS, 1003.0, False, 3, Step.ABORT),
        (Ending.SUCCESS, 1005.0, False, 4, Step.START),
        (Ending.ABORT, None, False, 4, Step.ABORT),
        (Ending.SUCCESS, None, True, 44, Step.SUCCEED),
        (Ending.SUCCESS, 1020.0, True, 20, Step.CANCEL),
        (Ending.SUCCESS, 1050.0, True, 44, Step.SUCCEED),
        (Ending.FAILURE, None, True, 20, Step.FAIL),
        (Ending.UNSAFE, None, True, 44, Step.REFUSE),
        (Ending.STUCK, None, True, 4 + 1800, Step.TIME_OUT),
        (Ending.STUCK, 1020.0, True, 20, Step.CANCEL),
    ],
)
def test_the_next_step_follows_plan_and_deadline(
    ending: Ending, deadline: float | None, running: bool, after_s: float, step: Step
) -> None:
    one = prediction(ending, deadline)
    if running:
        one = start(one, CREATED + BOOT_S)

    assert next_step(one, 1.0) == (CREATED + after_s, step)


def test_speed_divides_durations_and_leaves_the_deadline_alone() -> None:
    starting = prediction(deadline=CREATED + 30)
    running = start(starting, CREATED)

    assert next_step(starting, 10) == (CREATED + 0.4, Step.START)
    assert next_step(running, 10) == (CREATED + 4, Step.SUCCEED)
    assert next_step(running, 1) == (CREATED + 30, Step.CANCEL)


def test_a_run_of_more_than_thirty_minutes_times_out() -> None:
    running = start(prediction(run_s=2000), CREATED)

    assert next_step(running, 1) == (CREATED + 1800, Step.TIME_OUT)


@pytest.mark.parametrize(
    ("step", "status", "error"),
    [
        (Step.SUCCEED, Status.SUCCEEDED, None),
        (Step.FAIL, Status.FAILED, "E1001"),
        (Step.REFUSE, Status.FAILED, "NSFW"),
        (Step.TIME_OUT, Status.FAILED, "30 minutes"),
        (Step.CANCEL, Status.CANCELED, None),
        (Step.ABORT, Status.ABORTED, None),
    ],
)
def test_each_final_step_leads_to_its_status(step: Step, status: Status, error: str | None) -> None:
    running = start(prediction(), CREATED)

    ended = finish(running, step, CREATED + 5, speed=2)

    assert ended.status is status
    assert ended.status in FINAL
    assert ended.completed_at == CREATED + 5
    assert ended.predict_s == 10
    assert (ended.error is None) if error is None else (error in str(ended.error))


def test_a_prediction_that_never_ran_has_no_run_time() -> None:
    ended = finish(prediction(), Step.CANCEL, CREATED + 1, speed=1)

    assert ended.predict_s is None


def test_the_run_time_ends_where_the_run_should_have_ended() -> None:
    running = start(prediction(), CREATED)

    assert run_elapsed_s(running, CREATED + 0.02, 1000) == pytest.approx(20)
    assert run_elapsed_s(running, CREATED + 9, 1000) == RUN_S


def test_removal_takes_the_data_and_leaves_the_facts() -> None:
    ended = finish(start(prediction(), CREATED), Step.SUCCEED, CREATED + 5, speed=10)

    removed = remove_data(ended)
    large = remove_data(replace(ended, request="x" * 5000))

    assert (removed.input, removed.data_removed) == ({}, True)
    assert replace(removed, input=ended.input, data_removed=False) == ended
    assert large.request == "x" * 4096


def test_only_the_latest_attempts_are_kept() -> None:
    one = prediction()
    for number in range(100):
        one = with_attempt(one, Attempt("logs", f"msg_{number}", 0.0, 200, None), settled=False)

    assert len(one.attempts) == 64
    assert one.attempts[-1].webhook_id == "msg_99"
    assert with_attempt(one, one.attempts[0], settled=True).settled


def test_what_never_starts_waits_for_its_deadline_or_for_ever() -> None:
    for deadline, at in ((None, math.inf), (1060.0, 1060.0)):
        step = next_step(prediction(Ending.STUCK_STARTING, deadline), speed=1)
        assert step == (at, Step.START if deadline is None else Step.ABORT)


def test_an_earlier_moment_shows_an_earlier_prediction() -> None:
    done = finish(start(prediction(), 1004.0), Step.SUCCEED, 1044.0, speed=1)

    assert as_of(done, 999.0) is None
    assert as_of(done, 1000.0) == prediction()
    assert as_of(done, 1004.0) == start(prediction(), 1004.0)
    assert as_of(done, 1044.0) == done
    canceled = finish(prediction(), Step.CANCEL, 1002.0, speed=1)
    assert as_of(canceled, 1001.0) == prediction()


@pytest.mark.parametrize(
    ("step", "started", "charged"),
    [
        (None, False, (False, False)),
        (None, True, (False, False)),
        (Step.SUCCEED, True, (True, True)),
        (Step.FAIL, True, (False, True)),
        (Step.CANCEL, True, (True, True)),
        (Step.CANCEL, False, (False, True)),
        (Step.ABORT, False, (False, False)),
    ],
)
def test_what_costs_is_known_but_for_two_cases(
    step: Step | None, started: bool, charged: tuple[bool, bool]
) -> None:
    one = start(prediction(), 1004.0) if started else prediction()
    if step is not None:
        one = finish(one, step, 1044.0, speed=1)

    for unknown, expected in zip((False, True), charged, strict=True):
        assert is_charged(one, failed=unknown, canceled_before_start=unknown) is expected
