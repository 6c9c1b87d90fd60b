"""`reelworks credits …` for operators: proofs, corrections, and what is set aside."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from services.cli.credits import print_added, print_balance, print_transactions
from services.cli.lists import AllOption, LimitOption, Newest, page_size
from services.cli.options import (
    FailureExit,
    JsonOption,
    RequestIdOption,
    UserOption,
    VarOption,
    certificates_of_operator,
    check_number,
    check_text,
    request_key,
    run,
)
from services.cli.output import Column, print_json, print_line, print_table
from services.cli.up_file import service_address
from services.client.credits import (
    AddedCredits,
    CreditsClient,
    LedgerReport,
    Reimbursed,
    Reservation,
    ReservationState,
    TransactionType,
)

__all__ = ["adjust", "application", "parse_age", "reimburse", "reservations", "verify"]

application = typer.Typer()

_AnyUserOption = Annotated[str, typer.Option("--user", help="Only this user's; else all users'.")]
_ReasonOption = Annotated[
    str, typer.Option("--reason", callback=check_text, help="Why, for the statement.")
]

_VIOLATION_COLUMNS = (
    Column("RULE"),
    Column("USER"),
    Column("WHAT DOES NOT AGREE", folds=True),
)
_RESERVATION_COLUMNS = (
    Column("RESERVATION"),
    Column("USER"),
    Column("CREATED (UTC)"),
    Column("STATE"),
    Column("CREDITS", is_number=True),
    Column("COMMITTED", is_number=True),
    Column("REIMBURSED", is_number=True),
    Column("EXPIRES (UTC)"),
    Column("RESOLVED (UTC)"),
    Column("DESCRIPTION", folds=True),
)
_STATES = tuple(state for state in ReservationState if state is not ReservationState.UNKNOWN)
_AGE = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_AGE_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_CHANGE = re.compile(r"[+-]\d{1,30}", re.ASCII)


@application.command()
def verify(
    user: _AnyUserOption = "", var: VarOption = Path("var"), as_json: JsonOption = False
) -> None:
    """Prove the sums: compute every balance again from its transactions.

    The exit code is 1 if anything does not agree.

    With --json: one document {accounts_checked, transactions_checked, violations}.
    """
    report = run(_verify(service_address("credits", var), user), user)
    if as_json:
        print_json(report)
    else:
        found = len(report.violations)
        print_line(
            f"{f'violations: {found}' if found else 'all sums agree'} "
            f"(accounts: {report.accounts_checked}, transactions: {report.transactions_checked})"
        )
        if report.violations:
            rows = [(v.invariant, v.user_id, v.detail) for v in report.violations]
            print_table(_VIOLATION_COLUMNS, rows)
    if report.violations:
        raise FailureExit


def _check_change(value: str) -> str:
    if not _CHANGE.fullmatch(value):
        raise typer.BadParameter(f"{value} is no change: give it a sign, as in +50 or -50")
    check_number(int(value))
    return value


# A negative change would else be read as an option.
@application.command(context_settings={"ignore_unknown_options": True})
def adjust(
    user: Annotated[str, typer.Argument(metavar="USER", help="Whose account.")],
    change: Annotated[
        str,
        typer.Argument(metavar="±CREDITS", callback=_check_change, help="How many to add or take."),
    ],
    reason: _ReasonOption,
    request_id: RequestIdOption = "",
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Correct the available credits of an account, up or down; never below zero.

    With --json: one document {balance, transaction, replayed}.
    """
    key = request_key(request_id)
    added = run(_adjust(service_address("credits", var), user, int(change), key, reason), user, key)
    print_added(added, key, as_json=as_json)


@application.command()
def reimburse(
    reservation_id: Annotated[
        str, typer.Argument(metavar="RESERVATION", help="Its id: that of the generation.")
    ],
    amount: Annotated[
        int, typer.Argument(metavar="CREDITS", callback=check_number, help="How many.")
    ],
    reason: _ReasonOption,
    user: UserOption = "demo",
    request_id: RequestIdOption = "",
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Give back credits that were spent on a reservation; never more than were spent.

    With --json: one document {reservation, balance, transaction, replayed}.
    """
    key = request_key(request_id)
    given = run(
        _reimburse(service_address("credits", var), user, reservation_id, amount, key, reason),
        user,
        key,
    )
    if as_json:
        print_json(given)
        return
    if given.replayed:
        print_line(f"these credits were given back before, by the same --request-id {key}")
    print_transactions([given.transaction])
    reservation = given.reservation
    print_line(
        f"{reservation.reimbursed_credits} of {reservation.committed_credits} spent credits "
        f"are given back"
    )
    print_balance(given.balance)


@application.command()
def reservations(
    user: _AnyUserOption = "",
    state: Annotated[
        str,
        typer.Option(help="Only those: reserved, committed, refunded, expired, or rejected."),
    ] = "",
    older_than: Annotated[
        str, typer.Option(help="Only those made longer ago: 90s, 30m, 1h, 2d.")
    ] = "",
    limit: LimitOption = 50,
    everything: AllOption = False,
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """List what was set aside, and what became of it, newest first.

    With --json: a line for each reservation.
    """
    wanted = None
    if state:
        wanted = next((known for known in _STATES if known == state.upper()), None)
        if wanted is None:
            names = ", ".join(known.lower() for known in _STATES)
            raise typer.BadParameter(f"{state} is none of {names}", param_hint="--state")
    created_before = None
    if older_than:
        created_before = datetime.now(UTC) - parse_age(older_than)
    address, shown = service_address("credits", var), None if everything else limit
    run(_list_reservations(address, user, shown, wanted, created_before, as_json=as_json), user)


def parse_age(text: str, option: str = "--older-than") -> timedelta:
    """Returns the time that `90s`, `30m`, `1h` or `2d` stands for; anything else is refused."""
    match = _AGE.fullmatch(text)
    if match is None:
        raise typer.BadParameter(
            f"{text} is no time: give it as 90s, 30m, 1h or 2d", param_hint=option
        )
    age = timedelta(seconds=int(match[1]) * _AGE_UNITS_S[match[2]])
    if age > timedelta(days=36_500):
        raise typer.BadParameter("is more than a century", param_hint=option)
    return age


async def _verify(address: str, user_id: str) -> LedgerReport:
    async with CreditsClient(address, certificates_of_operator()) as client:
        return await client.verify_ledger(user_id)


async def _adjust(address: str, user_id: str, change: int, key: str, reason: str) -> AddedCredits:
    async with CreditsClient(address, certificates_of_operator()) as client:
        return await client.add_credits(user_id, change, TransactionType.ADJUSTMENT, key, reason)


async def _reimburse(
    address: str, user_id: str, reservation_id: str, amount: int, key: str, reason: str
) -> Reimbursed:
    async with CreditsClient(address, certificates_of_operator()) as client:
        return await client.reimburse(user_id, reservation_id, amount, key, reason)


async def _list_reservations(
    address: str,
    user_id: str,
    limit: int | None,
    state: ReservationState | None,
    created_before: datetime | None,
    *,
    as_json: bool,
) -> None:
    async with CreditsClient(address, certificates_of_operator()) as client:
        found = Newest(
            client.reservations(
                user_id, page_size(limit), state=state, created_before=created_before
            ),
            limit,
        )
        if as_json:
            async for reservation in found:
                print_json(reservation)
        else:
            rows = [_row_of(reservation) async for reservation in found]
            print_table(_RESERVATION_COLUMNS, rows)
        found.note()


def _row_of(reservation: Reservation) -> Sequence[object]:
    return (
        reservation.reservation_id,
        reservation.user_id,
        reservation.created_at,
        reservation.state.lower(),
        reservation.credits,
        reservation.committed_credits,
        reservation.reimbursed_credits,
        reservation.expires_at,
        reservation.resolved_at,
        reservation.description,
    )
