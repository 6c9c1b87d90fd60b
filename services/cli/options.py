"""Options that several commands have, and how their work is run."""

import asyncio
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from services.cli.output import print_error, print_note
from services.cli.problems import explain
from services.runtime.channel import PlaintextRefused
from services.runtime.errors import InvalidRequest, ServiceError
from services.runtime.settings import load_settings
from services.runtime.tls import Certificates, TlsSettings, open_certificates

__all__ = [
    "WRONG_USAGE",
    "FailureExit",
    "ForceOption",
    "JsonOption",
    "RequestIdOption",
    "UserOption",
    "VarOption",
    "certificates_of_operator",
    "check_number",
    "check_text",
    "fail",
    "request_key",
    "run",
]

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130

VarOption = Annotated[
    Path,
    typer.Option(
        "--var", envvar="REELWORKS_VAR", help="Folder of the data, and of up.json with addresses."
    ),
]
UserOption = Annotated[str, typer.Option("--user", help="Whose account.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Write over a file that --output names.")
]
RequestIdOption = Annotated[
    str,
    typer.Option(help="Key of the call: with the same one, credits move once. Else a new one."),
]

ResultType = TypeVar("ResultType")


class FailureExit(typer.Exit):
    """Ends the command with exit code 1, after its reason was printed."""

    def __init__(self) -> None:
        super().__init__(FAILED)


def run(work: Coroutine[Any, Any, ResultType], user_id: str = "", key: str = "") -> ResultType:
    """Runs the work of a command; an error of a service is printed and ends it with exit code 1.

    With exit code 2 if what was typed is the error, as where this side finds that out. `key` is the
    request id of work that moves credits.
    """
    try:
        return asyncio.run(work)
    except InvalidRequest as error:
        print_error(explain(error, user_id))
        raise typer.Exit(WRONG_USAGE) from None
    except PlaintextRefused as error:
        print_error(str(error))
        raise typer.Exit(WRONG_USAGE) from None
    except ServiceError as error:
        print_error(explain(error, user_id, key))
        raise FailureExit from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def certificates_of_operator() -> Certificates | None:
    """Returns what the person at this terminal shows to services: what the environment names."""
    return open_certificates(load_settings(TlsSettings))


def request_key(given: str) -> str:
    """Returns the key of a call that moves credits: the one given, else a new one.

    A new one is printed before the call, so that a call of unknown outcome can be repeated.
    """
    if given:
        return given
    key = str(uuid.uuid4())
    print_note(f"to repeat this call, and not make another, add --request-id {key}")
    return key


def check_number(value: int | None) -> int | None:
    """Refuses a number that no message can carry; what it may be, the service says."""
    if value is not None and not INT64_MIN <= value <= INT64_MAX:
        raise typer.BadParameter("must fit into 64 bits")
    return value


def check_text(value: str) -> str:
    """Refuses text that no message can carry."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("must be UTF-8 text") from None
    return value


def fail(text: str) -> NoReturn:
    """Prints what went wrong and ends the command with exit code 1."""
    print_error(text)
    raise FailureExit
