import re

import pytest

from services.simulator.plan import Ending, Plan, draw_plan, stream

PROMPT = {"prompt": "a red fox running through fresh snow"}


def plans(seed: int, account: str = "one", count: int = 2000) -> list[Plan]:
    return [draw_plan(seed, account, number, 39.0, PROMPT) for number in range(1, count + 1)]


def test_the_same_seed_draws_the_same_plans() -> None:
    assert plans(7, count=50) == plans(7, count=50)
    assert plans(7, count=50) != plans(8, count=50)


def test_what_one_prediction_asks_for_does_not_shift_another() -> None:
    before = draw_plan(1, "one", 2, 39.0, PROMPT)
    draw_plan(1, "two", 1, 150.0, {"prompt": "[slow] [fail]", "seed": 9})

    given_seed = draw_plan(1, "one", 2, 39.0, {**PROMPT, "seed": 5})

    assert draw_plan(1, "one", 2, 39.0, PROMPT) == before
    assert (given_seed.boot_s, given_seed.run_s) == (before.boot_s, before.run_s)
    assert given_seed.seed == 5


def test_each_purpose_has_a_stream_of_its_own() -> None:
    assert stream(1, "boot", "a", 1).random() != stream(1, "run", "a", 1).random()


def test_durations_follow_replicate() -> None:
    drawn = plans(1)

    cold = [plan for plan in drawn if plan.boot_s == 60]
    warm = [plan.boot_s for plan in drawn if plan.boot_s != 60]
    assert 60 <= len(cold) <= 140  # one in twenty of 2,000
    assert 2 <= min(warm) < 2.5
    assert 7.5 < max(warm) <= 8
    runs = [plan.run_s for plan in drawn]
    assert 39 * 0.85 <= min(runs) < 39 * 0.87
    assert 39 * 1.13 < max(runs) <= 39 * 1.15
    assert min(plan.jitter_s for plan in drawn) >= 0
    assert max(plan.jitter_s for plan in drawn) <= 0.05


def test_ids_look_like_replicates_and_differ_between_accounts() -> None:
    ids = [plan.prediction_id for account in ("one", "two") for plan in plans(1, account)]

    assert all(re.fullmatch("[a-z0-9]{26}", one) for one in ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("prompt", "ending", "silent"),
    [
        ("a quiet lake", Ending.SUCCESS, False),
        ("a quiet lake [fail]", Ending.FAILURE, False),
        ("[NSFW] a quiet lake", Ending.UNSAFE, False),
        ("a [stuck] lake", Ending.STUCK, False),
        ("a [abort] lake", Ending.ABORT, False),
        ("a [nowebhook] lake", Ending.SUCCESS, True),
        ("a [nowebhook] lake [fail]", Ending.FAILURE, True),
    ],
)
def test_a_marker_in_the_prompt_plans_the_end(prompt: str, ending: Ending, silent: bool) -> None:
    plan = draw_plan(1, "one", 1, 39.0, {"prompt": prompt})

    assert (plan.ending, plan.silent) == (ending, silent)


def test_slow_and_fast_change_the_run_time() -> None:
    usual = draw_plan(1, "one", 1, 39.0, PROMPT).run_s

    def run_s(**more: str) -> float:
        return draw_plan(1, "one", 1, 39.0, {**PROMPT, **more}).run_s

    assert run_s(prompt="a lake [slow]") == pytest.approx(4 * usual)
    assert run_s(fast_mode="Fast") < run_s(fast_mode="Balanced") < run_s(fast_mode="Off")
    assert run_s(fast_mode="Balanced") == usual
