"""The judge finds answers that are about something else, and what nobody asked for."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.chaos.good_run import at
from tests.chaos.stack.exhibits import Exhibits
from tests.chaos.stack.good_stack import (
    GOOD,
    OUTRUN,
    WELL,
    answer,
    balance,
    proofs,
    told,
    with_row,
    with_told,
)

WRONG: Mapping[str, tuple[str, str, Exhibits]] = {
    "an answer about another one": (
        "S5",
        "asked for g7, and was told of it",
        with_told(told(), told("get", generation_id="g7")),
    ),
    "another price": (
        "S5",
        "9 were told as its price",
        with_told(told(answer=answer(cost_credits=9))),
    ),
    "another model": (
        "S5",
        "'t2v-14B' was asked for, 't2v-1.3B' told",
        with_told(told(answer=answer(model="t2v-1.3B"))),
    ),
    "another resolution": (
        "S5",
        "its resolution is '480p'",
        with_told(told(answer=answer(resolution="720p"))),
    ),
    "another prompt": (
        "S5",
        "its prompt is 'a fox'",
        with_told(told(answer=answer(prompt="a cat"))),
    ),
    "another prompt that is told as it is": (
        "S5",
        "its prompt is 'a cat', 'a fox' was asked for",
        replace(with_row(prompt="a cat"), told=[told(answer=answer(prompt="a cat")), balance()]),
    ),
    "another kind": ("S5", "its kind is", with_told(told(answer=answer(kind="IMAGE_TO_VIDEO")))),
    "one that is told to be made again": (
        "S5",
        "its retry_of is",
        with_told(told(answer=answer(retry_of="g5"))),
    ),
    "one that had ended and is not deleted": (
        "S5",
        "had ended, and was told not to be deleted",
        with_told(told(), told("delete", answer={"deleted_ids": []})),
    ),
    "one that nobody deleted": (
        "S8",
        "nobody deleted it",
        with_row(deleted_at=at(5), erase_at=at(6)),
    ),
    "one that only a stranger deleted": (
        "S8",
        "nobody deleted it",
        replace(
            WELL["deleted"],
            told=[told(), told("delete", "unknown", user_id="eve", as_stranger=True), balance()],
        ),
    ),
    "one that nobody canceled": (
        "S8",
        "nobody canceled it, and it is CANCELED",
        with_row(stage="CANCELED", refund_percent=100),
    ),
    "one that only somebody else asked for": (
        "S8",
        "nobody asked for it",
        with_told(told(user_id="bob")),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_answers_is_found(name: str) -> None:
    rule, proof, exhibits = WRONG[name]

    assert proof in proofs(rule, exhibits)


def test_a_delete_whose_answer_was_lost_was_asked_for() -> None:
    lost = told("delete", "unknown", status="UNAVAILABLE", reason="")

    assert proofs("S8", replace(WELL["deleted"], told=[told(), lost, balance()])) == ""


def test_what_is_not_in_the_plan_is_not_held_against_it() -> None:
    assert proofs("S5", replace(GOOD, noted=[])) == proofs("S5", OUTRUN) == ""
