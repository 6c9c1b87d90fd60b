"""What a cancel does and gives back, at every stage."""

from dataclasses import replace

import pytest

from services.generation.cancellation import (
    CancelPolicy,
    Verdict,
    judge_cancel,
    percent_of_cancel,
    refund_of_cancel,
)
from services.generation.state import Generation, Stage
from tests.integration.generation.harness import generation_in

POLICY = CancelPolicy(not_submitted=100, starting=75, running=33)
PRICE = 10


def at(stage: Stage, parked_from: Stage | None = None, status: str | None = None) -> Generation:
    return generation_in(stage, parked_from=parked_from, provider_status=status)


@pytest.mark.parametrize(
    ("generation", "verdict", "refund_credits"),
    [
        (at(Stage.RESERVING), Verdict.ACCEPTED, 10),
        (at(Stage.READY), Verdict.ACCEPTED, 10),
        (at(Stage.SUBMITTING), Verdict.ACCEPTED, 10),
        (at(Stage.RUNNING, status="starting"), Verdict.ACCEPTED, 8),
        (at(Stage.RUNNING, status="processing"), Verdict.ACCEPTED, 4),
        (at(Stage.CANCELING, status="processing"), Verdict.ACCEPTED, 10),
        (at(Stage.ARCHIVING), Verdict.ALREADY_SUCCEEDED, None),
        (at(Stage.COMMITTING), Verdict.ALREADY_SUCCEEDED, None),
        (at(Stage.COMPLETED), Verdict.ALREADY_SUCCEEDED, None),
        (at(Stage.REFUNDING), Verdict.GENERATION_ENDED, None),
        (at(Stage.FAILED), Verdict.GENERATION_ENDED, None),
        (at(Stage.REJECTED), Verdict.GENERATION_ENDED, None),
        (at(Stage.CANCELED), Verdict.REPEATED, 10),
        (at(Stage.PARKED, Stage.RUNNING, "processing"), Verdict.ACCEPTED, 4),
        (at(Stage.PARKED, Stage.COMMITTING), Verdict.ALREADY_SUCCEEDED, None),
        (at(Stage.PARKED, Stage.REFUNDING), Verdict.GENERATION_ENDED, None),
    ],
    ids=lambda value: value.stage.value if isinstance(value, Generation) else str(value),
)
def test_a_cancel_gives_back_by_how_far_the_provider_had_come(
    generation: Generation, verdict: Verdict, refund_credits: int | None
) -> None:
    assert judge_cancel(generation) is verdict
    assert refund_of_cancel(generation, POLICY) == refund_credits


@pytest.mark.parametrize("percent", range(0, 101, 7))
@pytest.mark.parametrize("price_credits", [1, 3, 10, 20, 999])
def test_what_is_charged_and_what_is_given_back_are_the_price(
    percent: int, price_credits: int
) -> None:
    running = generation_in(
        Stage.RUNNING, price_credits=price_credits, provider_status="processing"
    )
    policy = CancelPolicy(running=percent)
    promised = refund_of_cancel(running, policy)
    canceled = replace(running, refund_percent=percent_of_cancel(running, policy))

    assert promised == refund_of_cancel(canceled, policy)
    assert promised == price_credits - canceled.charge_credits
    # In the user's favor where it cannot be divided.
    assert canceled.charge_credits * 100 <= price_credits * (100 - percent)
    assert canceled.charge_credits + 1 > price_credits * (100 - percent) / 100
