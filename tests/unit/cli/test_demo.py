"""The demonstration's judge tells right from wrong."""

from dataclasses import replace
from typing import Any

import pytest

from services.cli.demo import Expectation, judge
from services.client.credits import Balance, Transaction, TransactionType
from services.client.generations import (
    Generation,
    GenerationError,
    GenerationErrorCode,
    Stage,
    Status,
)
from tests.unit.cli.samples import GENERATION_ID, balance, generation, paid_record, transaction

PAID = Expectation(
    Status.COMPLETED, (TransactionType.RESERVATION, TransactionType.DEDUCTION), is_charged=True
)
REFUNDED = Expectation(
    Status.FAILED,
    (TransactionType.RESERVATION, TransactionType.REFUND),
    is_charged=False,
    error=GenerationErrorCode.MODEL_FAILED,
)
REFUSED = Expectation(
    Status.FAILED,
    (),
    is_charged=False,
    error=GenerationErrorCode.INSUFFICIENT_CREDITS,
    is_submitted=False,
)


def failed(code: GenerationErrorCode, **changes: Any) -> Generation:
    return generation(
        status=Status.FAILED,
        stage=Stage.FAILED,
        error=GenerationError(code, "No video."),
        charged_credits=0,
        video_uri="",
        **changes,
    )


def refunded_record() -> list[Transaction]:
    refund = transaction(
        3,
        TransactionType.REFUND,
        credits=10,
        reserved_change=-10,
        available_after=100,
        reservation_id=GENERATION_ID,
    )
    return [*paid_record()[:2], refund]


def test_what_is_as_expected_has_no_faults() -> None:
    opened = paid_record()[:1]
    failure = failed(GenerationErrorCode.MODEL_FAILED)
    refusal = failed(GenerationErrorCode.INSUFFICIENT_CREDITS, job_id="", attempt=0)

    assert judge(PAID, generation(), paid_record(), balance()) == []
    assert judge(REFUNDED, failure, refunded_record(), balance(100)) == []
    assert judge(REFUSED, refusal, opened, balance(100, version=1)) == []


@pytest.mark.parametrize(
    ("expectation", "wrong", "record", "end", "fault"),
    [
        (PAID, generation(charged_credits=20), paid_record(), balance(), "charged credits"),
        (PAID, generation(video_uri=""), paid_record(), balance(), "video"),
        (PAID, generation(), refunded_record(), balance(100), "movements"),
        (PAID, generation(), paid_record()[:2], balance(90, 10, 2), "credits still reserved"),
        (PAID, generation(cost_credits=0, charged_credits=0), [], balance(0, 0, 0), "the price"),
        (
            REFUNDED,
            failed(GenerationErrorCode.MODEL_FAILED),
            paid_record(),
            balance(),
            "credits moved",
        ),
        (
            REFUNDED,
            failed(GenerationErrorCode.OUTPUT_LOST),
            refunded_record(),
            balance(100),
            "error",
        ),
        (
            REFUSED,
            failed(GenerationErrorCode.INSUFFICIENT_CREDITS),
            paid_record()[:1],
            balance(100, version=1),
            "submission",
        ),
    ],
)
def test_what_is_not_as_expected_is_named(
    expectation: Expectation,
    wrong: Generation,
    record: list[Transaction],
    end: Balance,
    fault: str,
) -> None:
    assert any(found.startswith(fault) for found in judge(expectation, wrong, record, end))


def test_a_charge_that_was_made_twice_is_found() -> None:
    twice = replace(paid_record()[2], version=4, reserved_change=0, credits=-10, available_after=80)

    faults = judge(PAID, generation(), [*paid_record(), twice], balance(80, 0, 4))

    assert any(fault.startswith("credits moved: -20, not -10") for fault in faults)
