"""The judge finds what does not add up in accounts and reservations, also where errors cancel."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.good_run import G, at
from tests.chaos.stack.exhibits import Exhibits
from tests.chaos.stack.good_stack import (
    DEDUCTED,
    ENDED_BADLY,
    GIVEN,
    GOOD,
    PRICE,
    RESERVED,
    USER,
    WELL,
    balance,
    noting,
    proofs,
    reservation,
    told,
    transaction,
    with_evidence,
    with_row,
)

OTHER = "g3"


def with_other(exhibits: Exhibits, available: int, reserved: int) -> Exhibits:
    """A second reservation whose transactions take from the one what the other has too much."""
    moves = [
        transaction("RESERVATION", -PRICE, PRICE, OTHER),
        transaction("DEDUCTION", available, reserved, OTHER),
    ]
    return replace(
        exhibits,
        reservations={**exhibits.reservations, (USER, OTHER): reservation()[USER, G]},
        transactions=[*exhibits.transactions, *moves],
    )


CANCELING_OUT = with_other(
    replace(GOOD, transactions=[GIVEN, RESERVED, DEDUCTED | {"reserved_delta": -PRICE - 2}]),
    0,
    -PRICE + 2,
)
"""One reservation gave two credits too many, and the other kept two."""

WRONG: Mapping[str, tuple[str, Exhibits]] = {
    "errors that cancel each other": (f"sum up to [-{PRICE}, -2], not", CANCELING_OUT),
    "the other of them": (f"sum up to [-{PRICE}, 2], not", CANCELING_OUT),
    "one that was never set aside": (
        "its transactions are DEDUCTION 1", replace(GOOD, transactions=[GIVEN, DEDUCTED]),
    ),
    "one that was set aside twice": (
        "RESERVATION 2", replace(GOOD, transactions=[GIVEN, RESERVED, RESERVED, DEDUCTED]),
    ),
    "one that was never settled": (
        "its transactions are RESERVATION 1", replace(GOOD, transactions=[GIVEN, RESERVED]),
    ),
    "one that was settled otherwise": (
        "it is COMMITTED, and its transactions are REFUND 1, RESERVATION 1",
        replace(GOOD, transactions=ENDED_BADLY.transactions),
    ),
    "one of another size": (
        "it is of 12 credits, and [10] were set aside",
        replace(GOOD, reservations=reservation(credits=12)),
    ),
    "moves of none": (
        "a reservation that is not there",
        replace(GOOD, transactions=[*GOOD.transactions, transaction("REFUND", 1, -1, "g4")]),
    ),
    "reserved credits of no open reservation": (
        "reservations of 0 are open",
        replace(GOOD, accounts={USER: {"available": 80, "reserved": 10, "version": 3}}),
    ),
    "credits of no account": ("has no account", replace(GOOD, accounts={})),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_add_up_is_found(name: str) -> None:
    proof, exhibits = WRONG[name]

    assert proof in proofs("S4", exhibits)


def test_what_is_open_and_what_was_rejected_may_be_so() -> None:
    is_open = replace(
        GOOD,
        accounts={USER: {"available": 90, "reserved": 10, "version": 2}},
        reservations=reservation("RESERVED"),
        transactions=[GIVEN, RESERVED],
        evidence=replace(GOOD.evidence, generations={}),
    )
    rejected = replace(
        WELL["refused"], reservations=reservation("REJECTED"), told=[told(), balance(100)]
    )

    assert proofs("S4", is_open) == proofs("S4", rejected) == ""


def canceled(**changes: Any) -> Exhibits:
    """A generation that was canceled, and is otherwise well."""
    row = with_row(stage="CANCELED", charged_credits=0, output_key=None, refund_percent=100)
    rows = {G: dict(row.evidence.generations[G]) | changes}
    exhibits = with_evidence(ENDED_BADLY, generations=rows)
    return replace(
        exhibits, told=[told("cancel", "unknown", reason="", message="")], noted=noting()
    )


@pytest.mark.parametrize("percent", [0, 50])
def test_a_cancel_that_gives_back_only_a_part_is_found(percent: int) -> None:
    kept = replace(
        canceled(refund_percent=percent, charged_credits=PRICE, deleted_at=at(5)),
        reservations=reservation("COMMITTED"),
    )

    assert proofs("S2", canceled()) == proofs("J2", canceled()) == ""
    assert f"its cancel gives back {percent} percent" in proofs("S2", kept)
    assert "CANCELED, and its credits are COMMITTED" in proofs("S2", kept)
    assert f"{percent} percent of them go back" in proofs("J2", kept)
