"""The judge finds refusals that should not have been, and what should have been refused."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.good_run import G
from tests.chaos.stack.exhibits import Exhibits
from tests.chaos.stack.good_stack import (
    ENDED_BADLY,
    GOOD,
    OUTRUN,
    answer,
    balance,
    noting,
    proofs,
    told,
    with_told,
)
from tests.chaos.stack.plan import Kind

OWN = told(answer=answer(status="PROCESSING", stage="RUNNING", version=4))


def refused(call: str, reason: str, **changes: Any) -> dict[str, Any]:
    return told(call, "refused", reason=reason, **changes)


NOT_THERE = "GENERATION_NOT_FOUND"
AGAIN = {"generation_id": "g2", "retry_of": G}
FAILED = told(answer=answer(status="FAILED", stage="FAILED", charged_credits=0))

WRONG: Mapping[str, tuple[str, Exhibits]] = {
    "an owner who does not find it": (
        f"get was refused for {NOT_THERE}",
        with_told(OWN, refused("get", NOT_THERE)),
    ),
    "an owner who may not delete it": (
        f"delete was refused for {NOT_THERE}",
        with_told(OWN, refused("delete", NOT_THERE)),
    ),
    "an owner who may not cancel it": (
        f"cancel was refused for {NOT_THERE}",
        with_told(OWN, refused("cancel", NOT_THERE)),
    ),
    "an owner who may not know the balance": (
        "balance was refused for ACCOUNT_NOT_FOUND",
        replace(GOOD, told=[told(), balance(), refused("balance", "ACCOUNT_NOT_FOUND")]),
    ),
    "an image that is not taken": (
        "upload was refused for IMAGE_NOT_ACCEPTED",
        with_told(OWN, refused("upload", "IMAGE_NOT_ACCEPTED")),
    ),
    "a good create": (
        "refused for INVALID_FIELD; it may be for None",
        with_told(refused("create", "INVALID_FIELD")),
    ),
    "a repeated create": (
        "refused for GENERATION_ID_REUSED; it may be for None",
        with_told(OWN, refused("create", "GENERATION_ID_REUSED", changes={}), kind=Kind.CONTRARY),
    ),
    "a contrary create for another reason": (
        "it may be for GENERATION_ID_REUSED",
        with_told(
            OWN, refused("create", "INVALID_FIELD", changes={"prompt": "?"}), kind=Kind.CONTRARY
        ),
    ),
    "a bad create for another reason": (
        "it may be for MODEL_NOT_FOUND",
        with_told(refused("create", "INVALID_FIELD", changes={"model": "?"}), kind=Kind.BAD),
    ),
    "a poor create for another reason": (
        "it may be for INSUFFICIENT_CREDITS",
        with_told(refused("create", "ACCOUNT_NOT_FOUND"), kind=Kind.POOR),
    ),
    "a bad create that is answered": (
        "was to be refused for INVALID_FIELD, and was answered",
        with_told(told(changes={"seed": -1}), kind=Kind.BAD),
    ),
    "a poor create that is answered": (
        "was to be refused for INSUFFICIENT_CREDITS",
        with_told(told(), kind=Kind.POOR),
    ),
    "a contrary create that is answered": (
        "was to be refused for GENERATION_ID_REUSED",
        with_told(OWN, told(changes={"prompt": "?"}), kind=Kind.CONTRARY),
    ),
    "a failure that cannot be made again": (
        "g1 was to be made again, and that was refused for NOT_RETRYABLE",
        replace(ENDED_BADLY, told=[FAILED, refused("retry", "NOT_RETRYABLE", **AGAIN)]),
    ),
    "one to be made again that is not found": (
        f"that was refused for {NOT_THERE}",
        with_told(OWN, refused("retry", NOT_THERE, **AGAIN)),
    ),
    "a cancel of what did not succeed": (
        "refused for ALREADY_SUCCEEDED, and it is FAILED",
        replace(ENDED_BADLY, told=[OWN, refused("cancel", "ALREADY_SUCCEEDED")]),
    ),
    "a cancel of what did not end badly": (
        "refused for GENERATION_ENDED, and it is COMPLETED",
        with_told(OWN, refused("cancel", "GENERATION_ENDED")),
    ),
    "a stranger who is told more": (
        "a stranger's cancel was refused for ALREADY_SUCCEEDED",
        with_told(told(), refused("cancel", "ALREADY_SUCCEEDED", user_id="eve", as_stranger=True)),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_refusal_is_found(name: str) -> None:
    proof, exhibits = WRONG[name]

    assert proof in proofs("S6", exhibits)


@pytest.mark.parametrize(
    "exhibits",
    [
        with_told(OWN, refused("cancel", "ALREADY_SUCCEEDED")),
        replace(ENDED_BADLY, told=[OWN, refused("cancel", "GENERATION_ENDED")]),
        with_told(told(), refused("retry", "NOT_RETRYABLE", **AGAIN)),
        with_told(
            OWN,
            refused("create", "GENERATION_ID_REUSED", changes={"prompt": "?"}),
            kind=Kind.CONTRARY,
        ),
        with_told(OWN, refused("get", NOT_THERE, user_id="eve", as_stranger=True)),
        replace(OUTRUN, noted=noting(kind=Kind.CANCELED)),
    ],
)
def test_a_refusal_for_its_reason_is_good(exhibits: Exhibits) -> None:
    assert proofs("S6", exhibits) == ""
