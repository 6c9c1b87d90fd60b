"""`reelworks migrate`: brings databases to their newest schema."""

import os
from pathlib import Path
from typing import Annotated

import typer

from services.cli.migrations import migrate as migrate_databases
from services.cli.options import FailureExit, JsonOption, VarOption, run
from services.cli.output import print_error, print_json, print_line
from services.cli.stack import DATABASE_SERVICES, Ports, Stack, make_folder, make_keys

__all__ = ["migrate"]


def migrate(
    services: Annotated[
        list[str] | None,
        typer.Argument(metavar="SERVICE", help="credits, generation, webhook; by default all."),
    ] = None,
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Bring databases to their newest schema; one that has it, or a newer one, is left as it is.

    A database is the one that REELWORKS_{CREDITS,GENERATION,WEBHOOK}_DATABASE_URL names
    (sqlite:////absolute/path or postgresql://host/name), by default a file in --var; with _FILE at
    its end, the variable names a file that holds the address.

    With --json: a line {service, succeeded, log} for each.
    """
    chosen = services or list(DATABASE_SERVICES)
    for service in chosen:
        if service not in DATABASE_SERVICES:
            raise typer.BadParameter(f"{service} is none of {', '.join(DATABASE_SERVICES)}")
    stack = Stack(var.absolute(), Ports(), 1, dict(os.environ))
    make_folder(stack.var)
    make_keys(stack.var)
    results = run(migrate_databases(stack, chosen))
    for result in results:
        if as_json:
            print_json(result)
        elif result.succeeded:
            print_line(f"{result.service}: has the newest schema")
        else:
            print_error(f"{result.service}: {result.log or 'the migration failed'}")
    if not all(result.succeeded for result in results):
        raise FailureExit
