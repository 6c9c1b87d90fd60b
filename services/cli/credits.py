"""`reelworks credits …`: accounts, their statements, and credits for them."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from services.cli.export import write_csv
from services.cli.lists import AllOption, Newest, page_size
from services.cli.options import (
    JsonOption,
    RequestIdOption,
    UserOption,
    VarOption,
    certificates_of_operator,
    check_number,
    request_key,
    run,
)
from services.cli.output import Column, print_json, print_line, print_table, signed
from services.cli.up_file import service_address
from services.client.credits import (
    AddedCredits,
    Balance,
    CreditsClient,
    OpenedAccount,
    Transaction,
    TransactionType,
)

__all__ = [
    "application",
    "balance",
    "grant",
    "open_account",
    "print_added",
    "print_balance",
    "print_transactions",
    "transactions",
]

application = typer.Typer(help="Accounts and their credits.", no_args_is_help=True)

LIMIT = 50

_COLUMNS = (
    Column("NO", is_number=True),
    Column("TIME (UTC)"),
    Column("TYPE"),
    Column("CREDITS", is_number=True),
    Column("RESERVED", is_number=True),
    Column("AVAILABLE AFTER", is_number=True),
    Column("RESERVED AFTER", is_number=True),
    Column("DESCRIPTION", folds=True),
    Column("FOR"),
)
_GRANT_TYPES = (TransactionType.BONUS, TransactionType.PURCHASE, TransactionType.ADJUSTMENT)


@application.command("open")
def open_account(
    user: UserOption = "demo", var: VarOption = Path("var"), as_json: JsonOption = False
) -> None:
    """Open the account of a user, unless it is open.

    A new account holds the welcome bonus.

    With --json: one document {balance, created}.
    """
    opened = run(_open(service_address("credits", var), user), user)
    if as_json:
        print_json(opened)
        return
    print_line("the account is open now" if opened.created else "the account was open before")
    print_balance(opened.balance)


@application.command()
def balance(
    user: UserOption = "demo", var: VarOption = Path("var"), as_json: JsonOption = False
) -> None:
    """Show what a user has.

    That is nothing if the account was never opened.

    With --json: one document.
    """
    found = run(_balance(service_address("credits", var), user), user)
    if as_json:
        print_json(found)
    else:
        print_balance(found)


# A negative amount would else be read as an option.
@application.command(context_settings={"ignore_unknown_options": True})
def grant(
    amount: Annotated[
        int,
        typer.Argument(metavar="CREDITS", callback=check_number, help="May be negative to adjust."),
    ],
    user: UserOption = "demo",
    kind: Annotated[
        str, typer.Option("--type", help="bonus, purchase, or adjustment.")
    ] = TransactionType.BONUS.lower(),
    request_id: RequestIdOption = "",
    description: Annotated[str, typer.Option(help="What it is for, for the statement.")] = "",
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Add credits to an account.

    With --json: one document {balance, transaction, replayed}.
    """
    chosen = next((known for known in _GRANT_TYPES if known == kind.upper()), None)
    if chosen is None:
        raise typer.BadParameter(
            f"{kind} is none of bonus, purchase, adjustment", param_hint="--type"
        )
    key = request_key(request_id)
    added = run(
        _grant(service_address("credits", var), user, amount, chosen, key, description), user, key
    )
    print_added(added, key, as_json=as_json)


@application.command()
def transactions(
    user: UserOption = "demo",
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"How many, newest first: {LIMIT} by default, all with --csv."),
    ] = None,
    everything: AllOption = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV, for spreadsheets and imports.")
    ] = False,
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Show the statement of a user, newest first.

    With --json: a line for each transaction.
    """
    if as_csv and as_json:
        raise typer.BadParameter("is one form, --json another", param_hint="--csv")
    address = service_address("credits", var)
    shown = limit or (None if as_csv else LIMIT)
    if everything:
        shown = None
    run(_transactions(address, user, shown, as_csv=as_csv, as_json=as_json), user)


def print_added(added: AddedCredits, key: str, *, as_json: bool) -> None:
    """Prints what was added to an account by the call with this key."""
    if as_json:
        print_json(added)
        return
    if added.replayed:
        print_line(f"these credits were added before, by the same --request-id {key}")
    print_transactions([added.transaction])
    print_balance(added.balance)


def print_transactions(found: Sequence[Transaction], in_full: bool = True) -> None:
    """Prints transactions as lines of a statement.

    Not `in_full`, it leaves out dates and what each one is for, as suits those of one generation.
    """
    rows = [
        (
            transaction.version,
            transaction.created_at if in_full else f"{transaction.created_at:%H:%M:%S}",
            transaction.type.lower(),
            signed(transaction.credits),
            signed(transaction.reserved_change),
            transaction.available_after,
            transaction.reserved_after,
            transaction.description,
            transaction.reservation_id or transaction.request_id,
        )
        for transaction in found
    ]
    shown = len(_COLUMNS) if in_full else -1
    print_table(_COLUMNS[:shown], [row[:shown] for row in rows])


def print_balance(found: Balance) -> None:
    """Prints a balance in a line."""
    print_line(
        f"{found.user_id}: {found.available_credits} credits available, "
        f"{found.reserved_credits} reserved"
    )


async def _open(address: str, user_id: str) -> OpenedAccount:
    async with CreditsClient(address, certificates_of_operator()) as client:
        return await client.open_account(user_id)


async def _balance(address: str, user_id: str) -> Balance:
    async with CreditsClient(address, certificates_of_operator()) as client:
        return await client.get_balance(user_id)


async def _grant(
    address: str, user_id: str, amount: int, kind: TransactionType, key: str, description: str
) -> AddedCredits:
    async with CreditsClient(address, certificates_of_operator()) as client:
        return await client.add_credits(user_id, amount, kind, key, description)


async def _transactions(
    address: str, user_id: str, limit: int | None, *, as_csv: bool, as_json: bool
) -> None:
    async with CreditsClient(address, certificates_of_operator()) as client:
        found = Newest(client.transactions(user_id, page_size(limit)), limit)
        if as_csv:
            await write_csv(aiter(found), sys.stdout)
        elif as_json:
            async for transaction in found:
                print_json(transaction)
        else:
            print_transactions([transaction async for transaction in found])
        found.note()
