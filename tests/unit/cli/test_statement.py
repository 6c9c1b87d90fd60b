"""The statement's judge finds what does not add up."""

from dataclasses import replace
from typing import Any

import pytest

from services.cli.statement import find_faults, moved_by, net_credits
from tests.unit.cli.samples import GENERATION_ID, balance, paid_record


def test_a_record_that_adds_up_has_no_faults() -> None:
    assert find_faults(paid_record(), balance()) == []


def test_an_account_that_was_never_opened_has_no_faults() -> None:
    assert find_faults([], balance(0, 0, 0)) == []


@pytest.mark.parametrize(
    ("place", "changes", "fault"),
    [
        (1, {"version": 7}, "transaction 7 (RESERVATION) stands at place 2"),
        (2, {"available_after": 91}, "transaction 3 (DEDUCTION) says 91 available, not 90"),
        (2, {"reserved_after": 1}, "transaction 3 (DEDUCTION) says 1 reserved, not 0"),
        (2, {"reserved_change": 0}, "transaction 3 (DEDUCTION) says 0 reserved, not 10"),
        (2, {"reserved_change": -20}, "transaction 3 (DEDUCTION) leads below zero"),
        (0, {"credits": 110}, "transaction 1 (BONUS) says 100 available, not 110"),
    ],
)
def test_a_wrong_transaction_is_named(place: int, changes: dict[str, Any], fault: str) -> None:
    record = paid_record()
    record[place] = replace(record[place], **changes)

    assert fault in find_faults(record, balance())


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        (balance(available=80), "the balance says available 80, its transactions lead to 90"),
        (balance(reserved=10), "the balance says reserved 10, its transactions lead to 0"),
        (balance(version=4), "the balance says version 4, its transactions lead to 3"),
    ],
)
def test_a_balance_that_is_not_its_transactions_is_a_fault(wrong: Any, fault: str) -> None:
    assert find_faults(paid_record(), wrong) == [fault]


def test_a_missing_transaction_is_a_fault() -> None:
    record = paid_record()
    del record[1]

    assert find_faults(record, balance()) != []


def test_what_a_generation_moved_is_what_the_user_lost() -> None:
    own = moved_by(paid_record(), GENERATION_ID)

    assert [t.version for t in own] == [2, 3]
    assert net_credits(own) == -10
    assert net_credits(own[:1]) == 0, "reserved credits still belong to the user"
