"""The program `reelworks`: its commands and how they are grouped."""

import os
import sys

# gRPC's own lines about connections that fail would stand between ours; to be said before its
# import.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import typer

from services.cli import (
    balances,
    certs,
    demo,
    generate,
    generations,
    ledger,
    migrate,
    models,
    operations,
    up,
    webhook_address,
    webhooks,
)
from services.cli import credits as credits_commands

__all__ = ["build", "main"]


def main() -> None:
    """Runs the command that was asked for."""
    build(for_terminal=sys.stdout.isatty() and sys.stderr.isatty())()


def build(for_terminal: bool) -> typer.Typer:
    """Returns the program; help and usage errors are drawn in boxes on a terminal only."""
    application = typer.Typer(
        name="reelworks",
        help="AI video by credits, on this machine. Start with `reelworks up`.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich" if for_terminal else None,
    )
    application.command()(up.up)
    application.command()(demo.demo)
    application.command()(generate.generate)
    application.command()(models.models)
    application.command()(migrate.migrate)
    application.command()(certs.certs)
    credits_commands.application.add_typer(ledger.application)
    credits_commands.application.add_typer(balances.application)
    application.add_typer(credits_commands.application, name="credits")
    generations.application.add_typer(operations.application)
    application.add_typer(generations.application, name="generations")
    webhooks.application.add_typer(webhook_address.application)
    application.add_typer(webhooks.application, name="webhooks")
    return application


if __name__ == "__main__":
    main()
