"""One vector for each cell of the table state by command, each carried out twice."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from services.credits.commands import (
    AddCredits,
    Command,
    Commit,
    Expire,
    OpenAccount,
    Refund,
    Reimburse,
    Reserve,
    key_of,
    reservation_id_of,
)
from services.credits.ledger import Books, Moved, Refusal, Refused, Unchanged, decide
from services.credits.records import (
    CREDITS_MAX,
    Account,
    Reservation,
    ReservationState,
    Transaction,
    TransactionType,
)

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ACCOUNT = Account("u", 100, 30, 7, created_at=NOW - HOUR, updated_at=NOW - HOUR)


def reservation_in(state: ReservationState, *, due: bool = False) -> Reservation:
    """Thirty credits, of which twenty are spent where any are."""
    return Reservation(
        user_id="u",
        reservation_id="r",
        credits=30,
        state=state,
        committed=20 if state is ReservationState.COMMITTED else 0,
        reimbursed=5 if state is ReservationState.COMMITTED else 0,
        rejected_available=12 if state is ReservationState.REJECTED else None,
        created_at=NOW - HOUR,
        # What expires at this very moment is due.
        expires_at=NOW if due else NOW + timedelta(microseconds=1),
        resolved_at=None if state is ReservationState.RESERVED else NOW - HOUR,
        description="a red fox",
    )


STATES = {
    "none": None,
    "RESERVED": reservation_in(ReservationState.RESERVED),
    "due": reservation_in(ReservationState.RESERVED, due=True),
    "COMMITTED": reservation_in(ReservationState.COMMITTED),
    "REFUNDED": reservation_in(ReservationState.REFUNDED),
    "EXPIRED": reservation_in(ReservationState.EXPIRED, due=True),
    "REJECTED": reservation_in(ReservationState.REJECTED),
}
COMMANDS: dict[str, Command] = {
    "reserve same": Reserve("u", "r", 30, HOUR, "another description"),
    "reserve other": Reserve("u", "r", 31, HOUR),
    "commit all": Commit("u", "r"),
    "commit 30": Commit("u", "r", 30),
    "commit 20": Commit("u", "r", 20),
    "commit 0": Commit("u", "r", 0),
    "commit 31": Commit("u", "r", 31),
    "refund": Refund("u", "r", "why"),
    "expire": Expire("u", "r"),
    "reimburse 15": Reimburse("u", "r", "q", 15),
    "reimburse 16": Reimburse("u", "r", "q", 16),
}


class Movement(NamedTuple):
    """What a command moves: the state it leads to, and the transaction."""

    state: str
    type: str
    available: int
    reserved: int


Expected = Movement | Refused | Unchanged

NOT_FOUND = Refused(Refusal.RESERVATION_NOT_FOUND, {"reservation_id": "r"})
REUSED = Refused(Refusal.RESERVATION_ID_REUSED, {"field": "credits", "was": "30"})
EXPIRED = Refused(Refusal.RESERVATION_EXPIRED, {"expire_time": "2026-07-01T12:00:00Z"})
EXCEEDS = Refused(Refusal.COMMIT_EXCEEDS_RESERVATION, {"credits": "30", "required": "31"})
REFUNDED = Refused(Refusal.ALREADY_REFUNDED, {})
REJECTED = Refused(Refusal.RESERVATION_REJECTED, {})
REPLAY = Unchanged()

TABLE: dict[str, dict[str, Expected]] = {
    "none": {
        "reserve same": Movement("RESERVED", "RESERVATION", -30, 30),
        "commit all": NOT_FOUND,
        "commit 31": NOT_FOUND,
        "refund": NOT_FOUND,
        "expire": REPLAY,
        "reimburse 15": NOT_FOUND,
    },
    "RESERVED": {
        "reserve same": REPLAY,
        "reserve other": REUSED,
        "commit all": Movement("COMMITTED", "DEDUCTION", 0, -30),
        "commit 30": Movement("COMMITTED", "DEDUCTION", 0, -30),
        "commit 20": Movement("COMMITTED", "DEDUCTION", 10, -30),
        "commit 0": Movement("COMMITTED", "DEDUCTION", 30, -30),
        "commit 31": EXCEEDS,
        "refund": Movement("REFUNDED", "REFUND", 30, -30),
        "expire": REPLAY,
        "reimburse 15": Refused(Refusal.NOT_COMMITTED, {"state": "RESERVED"}),
    },
    "due": {
        "reserve same": REPLAY,
        "reserve other": REUSED,
        "commit all": EXPIRED,
        "commit 30": EXPIRED,
        "commit 0": EXPIRED,
        "commit 31": EXCEEDS,
        "refund": Movement("REFUNDED", "REFUND", 30, -30),
        "expire": Movement("EXPIRED", "EXPIRY", 30, -30),
        "reimburse 15": Refused(Refusal.NOT_COMMITTED, {"state": "RESERVED"}),
    },
    "COMMITTED": {
        "reserve same": REPLAY,
        "reserve other": REUSED,
        "commit all": Refused(Refusal.COMMIT_MISMATCH, {"committed": "20", "required": "30"}),
        "commit 20": REPLAY,
        "commit 0": Refused(Refusal.COMMIT_MISMATCH, {"committed": "20", "required": "0"}),
        "commit 31": Refused(Refusal.COMMIT_MISMATCH, {"committed": "20", "required": "31"}),
        "refund": Refused(Refusal.ALREADY_COMMITTED, {"committed": "20"}),
        "expire": REPLAY,
        "reimburse 15": Movement("COMMITTED", "REIMBURSEMENT", 15, 0),
        "reimburse 16": Refused(
            Refusal.REIMBURSE_EXCEEDS_COMMITTED,
            {"committed": "20", "reimbursed": "5", "required": "16"},
        ),
    },
    "REFUNDED": {
        "reserve same": REPLAY,
        "reserve other": REUSED,
        "commit all": REFUNDED,
        "commit 31": REFUNDED,
        "refund": REPLAY,
        "expire": REPLAY,
        "reimburse 15": Refused(Refusal.NOT_COMMITTED, {"state": "REFUNDED"}),
    },
    "EXPIRED": {
        "reserve same": REPLAY,
        "reserve other": REUSED,
        "commit all": EXPIRED,
        "commit 31": EXPIRED,
        "refund": REPLAY,
        "expire": REPLAY,
        "reimburse 15": Refused(Refusal.NOT_COMMITTED, {"state": "EXPIRED"}),
    },
    "REJECTED": {
        "reserve same": Refused(
            Refusal.INSUFFICIENT_CREDITS, {"required": "30", "available": "12"}
        ),
        "reserve other": REUSED,
        "commit all": REJECTED,
        "commit 31": REJECTED,
        "refund": REJECTED,
        "expire": REPLAY,
        "reimburse 15": Refused(Refusal.NOT_COMMITTED, {"state": "REJECTED"}),
    },
}
VECTORS = [
    pytest.param(STATES[state], COMMANDS[command], expected, id=f"{state}-{command}")
    for state, row in TABLE.items()
    for command, expected in row.items()
]


@pytest.mark.parametrize(("reservation", "command", "expected"), VECTORS)
def test_each_state_answers_each_command_as_the_table_says(
    reservation: Reservation | None, command: Command, expected: Expected
) -> None:
    books = Books(ACCOUNT, reservation)

    outcome = decide(books, command, NOW)
    again = decide(after(books, outcome, command), command, NOW)

    if isinstance(expected, Movement):
        assert isinstance(outcome, Moved)
        assert_moved(outcome, reservation, expected)
        assert again == Unchanged()
    else:
        assert outcome == expected
        assert again == expected


def after(books: Books, outcome: object, command: Command) -> Books:
    """What a command finds after another one."""
    match outcome:
        case Moved(account, reservation, transaction):
            key = key_of(command)
            known = transaction if transaction and transaction.key == key else books.transaction
            return Books(account, reservation or books.reservation, known)
        case Refused(remembered=Reservation() as reservation):
            return replace(books, reservation=reservation)
        case _:
            return books


def assert_moved(moved: Moved, before: Reservation | None, expected: Movement) -> None:
    state, type_, available, reserved = expected
    account, reservation, transaction = moved.account, moved.reservation, moved.transaction
    assert account == replace(
        ACCOUNT,
        available=100 + available,
        reserved=30 + reserved,
        version=8,
        updated_at=NOW,
    )
    assert reservation is not None
    assert transaction is not None
    assert reservation.state == state
    verb = {"RESERVATION": "reserve:r", "REIMBURSEMENT": "reimburse:q"}.get(type_, "resolve:r")
    assert transaction == Transaction(
        user_id="u",
        version=8,
        key=verb,
        type=TransactionType(type_),
        available_delta=available,
        reserved_delta=reserved,
        available_after=account.available,
        reserved_after=account.reserved,
        reservation_id="r",
        description=transaction.description,
        created_at=NOW,
    )
    if before is not None:
        spent = -(available + reserved) if type_ == "DEDUCTION" else before.committed
        returned = available if type_ == "REIMBURSEMENT" else 0
        assert reservation == replace(
            before,
            state=reservation.state,
            committed=spent,
            reimbursed=before.reimbursed + returned,
            resolved_at=before.resolved_at if type_ == "REIMBURSEMENT" else NOW,
        )


def test_every_cell_has_a_vector() -> None:
    kinds = {"reserve same", "commit all", "refund", "expire", "reimburse 15"}

    assert TABLE.keys() == STATES.keys()
    assert {name.split()[0] for name in COMMANDS} == {name.split()[0] for name in kinds}
    for state, row in TABLE.items():
        assert kinds <= row.keys(), state
        assert state == "none" or "reserve other" in row, state


def test_a_reserve_above_what_is_available_is_remembered_as_rejected() -> None:
    command = Reserve("u", "r", 101, HOUR, "too much")

    outcome = decide(Books(ACCOUNT), command, NOW)
    assert isinstance(outcome, Refused)
    rich = replace(ACCOUNT, available=1000)
    again = decide(Books(rich, outcome.remembered), command, NOW)

    assert outcome.refusal == "INSUFFICIENT_CREDITS"
    assert outcome.metadata == {"required": "101", "available": "100"}
    assert outcome.remembered == Reservation(
        "u", "r", 101, ReservationState.REJECTED, 0, 0, 100, NOW, NOW + HOUR, NOW, "too much"
    )
    assert again == replace(outcome, remembered=None)


def test_a_reserve_of_all_that_is_available_succeeds() -> None:
    outcome = decide(Books(ACCOUNT), Reserve("u", "r", 100, HOUR), NOW)

    assert isinstance(outcome, Moved)
    assert (outcome.account.available, outcome.account.reserved) == (0, 130)


def test_an_account_is_opened_once_with_its_bonus() -> None:
    outcome = decide(Books(), OpenAccount("u", 100), NOW)
    assert isinstance(outcome, Moved)
    again = decide(Books(outcome.account), OpenAccount("u", 100), NOW + HOUR)

    assert outcome.account == Account("u", 100, 0, 1, NOW, NOW)
    assert outcome.transaction == Transaction(
        "u", 1, "open:welcome", TransactionType.BONUS, 100, 0, 100, 0, None, "Welcome bonus", NOW
    )
    assert again == Unchanged()


def test_an_account_without_a_bonus_begins_without_a_transaction() -> None:
    outcome = decide(Books(), OpenAccount("u", 0), NOW)

    assert outcome == Moved(Account("u", 0, 0, 0, NOW, NOW))


@pytest.mark.parametrize(
    "command",
    [*COMMANDS.values(), AddCredits("u", "q", TransactionType.PURCHASE, 1)],
    ids=repr,
)
def test_without_an_account_every_other_command_is_refused(command: Command) -> None:
    assert decide(Books(), command, NOW) == Refused(Refusal.ACCOUNT_NOT_FOUND, {"user_id": "u"})


ADDED = Transaction("u", 7, "add:q", TransactionType.PURCHASE, 40, 0, 100, 30, None, "", NOW)


@pytest.mark.parametrize(
    ("command", "known", "expected"),
    [
        pytest.param(AddCredits("u", "q", TransactionType.PURCHASE, 40), ADDED, REPLAY, id="same"),
        pytest.param(
            AddCredits("u", "q", TransactionType.BONUS, 40),
            ADDED,
            Refused(Refusal.REQUEST_ID_REUSED, {"field": "type", "was": "PURCHASE"}),
            id="other type",
        ),
        pytest.param(
            AddCredits("u", "q", TransactionType.PURCHASE, 41),
            ADDED,
            Refused(Refusal.REQUEST_ID_REUSED, {"field": "credits", "was": "40"}),
            id="other credits",
        ),
        pytest.param(
            AddCredits("u", "q", TransactionType.ADJUSTMENT, -101),
            None,
            Refused(Refusal.INSUFFICIENT_CREDITS, {"required": "101", "available": "100"}),
            id="below zero",
        ),
        pytest.param(
            AddCredits("u", "q", TransactionType.PURCHASE, CREDITS_MAX - 129),
            None,
            Refused(Refusal.BALANCE_LIMIT_EXCEEDED, {"limit": str(CREDITS_MAX)}),
            id="above the limit",
        ),
        pytest.param(
            AddCredits("u", "q", TransactionType.PURCHASE, CREDITS_MAX - 130),
            None,
            CREDITS_MAX - 130,
            id="up to the limit",
        ),
        pytest.param(
            AddCredits("u", "q", TransactionType.ADJUSTMENT, -100), None, -100, id="down to zero"
        ),
    ],
)
def test_credits_are_added_once_and_within_limits(
    command: AddCredits, known: Transaction | None, expected: Refused | Unchanged | int
) -> None:
    outcome = decide(Books(ACCOUNT, transaction=known), command, NOW)

    if isinstance(expected, int):
        assert isinstance(outcome, Moved)
        assert outcome.transaction is not None
        assert outcome.transaction.available_delta == expected
        assert outcome.transaction.key == "add:q"
        assert outcome.account.available == 100 + expected
    else:
        assert outcome == expected


def test_a_known_key_is_answered_before_the_balance_is_looked_at() -> None:
    taken = replace(ADDED, type=TransactionType.ADJUSTMENT, available_delta=-40)
    poor = replace(ACCOUNT, available=0)

    outcome = decide(
        Books(poor, transaction=taken), AddCredits("u", "q", TransactionType.ADJUSTMENT, -40), NOW
    )

    assert outcome == Unchanged()


@pytest.mark.parametrize(
    ("command", "field", "was"),
    [
        (Reimburse("u", "other", "q", 15), "reservation_id", "r"),
        (Reimburse("u", "r", "q", 14), "credits", "15"),
    ],
)
def test_a_reimbursement_with_a_known_key_and_other_fields_is_refused(
    command: Reimburse, field: str, was: str
) -> None:
    known = Transaction(
        "u", 7, "reimburse:q", TransactionType.REIMBURSEMENT, 15, 0, 100, 30, "r", "", NOW
    )

    outcome = decide(Books(ACCOUNT, STATES["COMMITTED"], known), command, NOW)

    assert outcome == Refused(Refusal.REQUEST_ID_REUSED, {"field": field, "was": was})


def test_a_reimbursement_above_the_limit_of_the_account_is_refused() -> None:
    full = replace(ACCOUNT, available=CREDITS_MAX - 30)

    outcome = decide(Books(full, STATES["COMMITTED"]), Reimburse("u", "r", "q", 1), NOW)

    assert outcome == Refused(Refusal.BALANCE_LIMIT_EXCEEDED, {"limit": str(CREDITS_MAX)})


def test_time_never_falls_along_the_record_of_an_account() -> None:
    ahead = replace(ACCOUNT, updated_at=NOW + HOUR)

    outcome = decide(Books(ahead), Reserve("u", "r", 1, HOUR), NOW)

    assert isinstance(outcome, Moved)
    assert outcome.transaction is not None
    assert outcome.reservation is not None
    assert outcome.transaction.created_at == outcome.account.updated_at == NOW + HOUR
    assert outcome.reservation.expires_at == NOW + 2 * HOUR


def test_the_first_description_stays_and_a_reason_is_the_description_of_its_transaction() -> None:
    refunded = decide(Books(ACCOUNT, STATES["RESERVED"]), Refund("u", "r", "why"), NOW)
    committed = decide(Books(ACCOUNT, STATES["RESERVED"]), Commit("u", "r"), NOW)

    assert isinstance(refunded, Moved)
    assert isinstance(committed, Moved)
    assert refunded.transaction is not None
    assert committed.transaction is not None
    assert refunded.transaction.description == "why"
    assert committed.transaction.description == "a red fox"


@pytest.mark.parametrize(
    "impossible",
    [{"available": -1}, {"reserved": -1}, {"available": CREDITS_MAX, "reserved": 1}],
)
def test_an_account_that_cannot_be_is_not_made(impossible: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        replace(ACCOUNT, **impossible)


def test_commands_name_the_reservation_and_the_key_that_they_are_judged_by() -> None:
    added = AddCredits("u", "q", TransactionType.BONUS, 1)

    assert [reservation_id_of(c) for c in COMMANDS.values()] == ["r"] * len(COMMANDS)
    assert (reservation_id_of(added), key_of(added)) == (None, "add:q")
    assert (reservation_id_of(OpenAccount("u", 1)), key_of(OpenAccount("u", 1))) == (None, None)
    assert key_of(Reimburse("u", "r", "q", 1)) == "reimburse:q"
    assert ADDED.request_id == "q"
