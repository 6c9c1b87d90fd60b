"""`reelworks credits import`: brings the balances of another ledger over, each once."""

import asyncio
import csv
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import (
    WRONG_USAGE,
    FailureExit,
    JsonOption,
    VarOption,
    certificates_of_operator,
    run,
)
from services.cli.output import Column, print_error, print_json, print_line, print_table
from services.cli.problems import explain
from services.cli.up_file import service_address
from services.client.credits import CreditsClient, TransactionType
from services.runtime.errors import ServiceError
from services.runtime.validation import rule_broken

__all__ = [
    "Line",
    "WrongFile",
    "application",
    "import_balances",
    "parse_balances",
    "request_id_of",
]

application = typer.Typer()

COLUMNS = ("user_id", "credits")
CALLS_AT_ONCE = 16
WRONG_LINES_SHOWN = 20
DESCRIPTION = "Balance brought over"
DIGEST_CHARACTERS = 36
"""As many as a UUID has, so that a name which fits before the one fits before the other."""

_NAME = re.compile(r"[!-~]{1,27}")
_CREDITS = re.compile(r"\d{1,15}", re.ASCII)
_FAILURE_COLUMNS = (Column("USER"), Column("CREDITS", is_number=True), Column("WHY", folds=True))


class WrongFile(Exception):
    """A file that cannot be imported; the text says all that is wrong with it, by lines."""


@dataclass(frozen=True, slots=True)
class Line:
    """One balance to be brought over."""

    user_id: str
    credits: int


def _check_name(value: str) -> str:
    """Refuses a name that does not fit into a request id with what follows it."""
    if not _NAME.fullmatch(value):
        raise typer.BadParameter("must be 1 to 27 visible ASCII characters")
    return value


@dataclass(frozen=True, slots=True)
class _Outcome:
    line: Line
    was_there: bool = False
    """Whether an earlier run had brought it over."""
    failure: str = ""


@application.command("import")
def import_balances(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="CSV: user_id,credits.")
    ],
    name: Annotated[
        str,
        typer.Option(callback=_check_name, help="Key of this import: with the same, once a user."),
    ] = "import",
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Open accounts with the balances of another ledger, once a user however often it runs.

    The first line of FILE names the columns, user_id and credits. An account that is opened has
    exactly these credits afterwards: the welcome bonus is part of them. A file with anything wrong
    in it changes nothing, and the exit code is 2; if a balance cannot be brought over, it is 1, and
    the same command goes on with the rest.

    With --json: one document {accounts, credits, were_there, failures}.
    """
    try:
        lines = parse_balances(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, WrongFile) as error:
        print_error(f"{file}: {error}")
        raise typer.Exit(WRONG_USAGE) from None
    outcomes = run(_import(service_address("credits", var), name, lines))
    failed = [outcome for outcome in outcomes if outcome.failure]
    done = [outcome for outcome in outcomes if not outcome.failure]
    total = sum(outcome.line.credits for outcome in done)
    were_there = sum(outcome.was_there for outcome in done)
    rows = [(one.line.user_id, one.line.credits, one.failure) for one in failed]
    if as_json:
        failures = [dict(zip(("user_id", "credits", "why"), row, strict=True)) for row in rows]
        sums = {"accounts": len(done), "credits": total, "were_there": were_there}
        print_json(sums | {"failures": failures})
    else:
        print_line(f"accounts: {len(done)}, with {total} credits; were there before: {were_there}")
        if rows:
            print_table(_FAILURE_COLUMNS, rows)
    if failed:
        raise FailureExit


def parse_balances(text: str) -> list[Line]:
    """Returns the balances in a CSV file; raises WrongFile that names lines and rules."""
    lines: dict[str, Line] = {}
    wrong: list[str] = []
    for number, row in _rows(text):
        problem = _problem(row, lines)
        if problem:
            wrong.append(f"line {number}: {problem}")
        else:
            lines[row[0]] = Line(row[0], int(row[1]))
    if wrong:
        more = len(wrong) - WRONG_LINES_SHOWN
        shown = [*wrong[:WRONG_LINES_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        raise WrongFile("; ".join(shown))
    return list(lines.values())


def request_id_of(name: str, user_id: str) -> str:
    """Returns the key by which an import of this name moves a user's credits once."""
    key = f"{name}:{user_id}"
    if not rule_broken("request_id", key):
        return key
    digest = hashlib.sha256(user_id.encode()).hexdigest()
    return f"{name}:{digest[:DIGEST_CHARACTERS]}"


def _rows(text: str) -> Iterator[tuple[int, Sequence[str]]]:
    """Yields what stands below the names of the columns, with the numbers of its lines."""
    reader = csv.reader(text.splitlines())
    try:
        if tuple(next(reader, ())) != COLUMNS:
            raise WrongFile(f"line 1: must be {','.join(COLUMNS)}")
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise WrongFile(f"line {reader.line_num}: {error}") from None


def _problem(row: Sequence[str], known: dict[str, Line]) -> str:
    if len(row) != len(COLUMNS):
        return f"must have {len(COLUMNS)} values"
    user_id, credits_held = row
    if not user_id:
        return "user_id must not be empty"
    rule = rule_broken("user_id", user_id)
    if rule:
        return f"user_id {rule}"
    if user_id in known:
        return "user_id must not be there twice"
    if not _CREDITS.fullmatch(credits_held):
        return "credits must be a whole number, 0 or more"
    return ""


async def _import(address: str, name: str, lines: Sequence[Line]) -> list[_Outcome]:
    places = asyncio.Semaphore(CALLS_AT_ONCE)
    async with CreditsClient(address, certificates_of_operator()) as client:

        async def bring(line: Line) -> _Outcome:
            async with places:
                try:
                    return _Outcome(line, was_there=await _bring_over(client, name, line))
                except ServiceError as error:
                    return _Outcome(line, failure=explain(error, line.user_id))

        return await asyncio.gather(*map(bring, lines))


async def _bring_over(client: CreditsClient, name: str, line: Line) -> bool:
    """Brings a balance over; returns whether that was done before."""
    opened = await client.open_account(line.user_id)
    # What the account was opened with stands in its record for ever, so a repetition finds the same
    # difference, and its key makes it one movement.
    change = line.credits - await _welcome_credits(client, line.user_id)
    if not change:
        return not opened.created
    key = request_id_of(name, line.user_id)
    added = await client.add_credits(
        line.user_id, change, TransactionType.ADJUSTMENT, key, DESCRIPTION
    )
    return added.replayed


async def _welcome_credits(client: CreditsClient, user_id: str) -> int:
    """Returns what an account was given when it was opened."""
    first = None
    async for transaction in client.transactions(user_id):
        first = transaction
    is_welcome = first and first.type is TransactionType.BONUS and not first.request_id
    return first.credits if first and is_welcome else 0
