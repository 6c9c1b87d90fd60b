"""`reelworks webhooks check | send-test`: whether webhooks arrive at the public address."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from services.cli.options import JsonOption, VarOption, fail
from services.cli.output import print_json, print_line
from services.cli.public_address import (
    Finding,
    NotReached,
    examine,
    fetch_secret,
    newest_key,
    sample_event,
)
from services.cli.stack import SIMULATOR_TOKEN, WEBHOOK_PATH
from services.cli.up_file import read_up_file

__all__ = ["application", "check", "send_test"]

REPLICATE_URL = "https://api.replicate.com"

application = typer.Typer()

_UrlOption = Annotated[
    str,
    typer.Option(
        "--url",
        envvar="REELWORKS_WEBHOOK_PUBLIC_URL",
        help="Where Replicate sends webhooks; by default what runs with the data in --var.",
    ),
]


@application.command()
def check(url: _UrlOption = "", var: VarOption = Path("var"), as_json: JsonOption = False) -> None:
    """Prove that the public address leads to the webhook service: names, TLS, proxy, no redirect.

    An unsigned webhook is posted there, which the service, and nobody else, refuses in its own
    words; nothing is stored. The exit code is 1 if anything else happens.

    With --json: one document {url, status, problem, webhook_id}.
    """
    url = _address(url, var)
    finding = examine(url, b"{}", {"content-type": "application/json"})
    _report(finding, f"{url} leads to the webhook service", as_json=as_json)


@application.command("send-test")
def send_test(
    url: _UrlOption = "",
    secrets_file: Annotated[
        Path | None,
        typer.Option(
            envvar="REELWORKS_WEBHOOK_SECRETS_FILE",
            exists=True,
            dir_okay=False,
            help="File with the signing secret; else REPLICATE_WEBHOOK_SECRET, else Replicate is "
            "asked with REPLICATE_API_TOKEN.",
        ),
    ] = None,
    var: VarOption = Path("var"),
    as_json: JsonOption = False,
) -> None:
    """Sign a sample webhook and post it to the public address.

    It is about no job that exists, so generation keeps it as unmatched and does nothing. The exit
    code is 1 unless the service has stored it.

    With --json: one document {url, status, problem, webhook_id}.
    """
    url = _address(url, var)
    try:
        key = newest_key(_secret(secrets_file, var))
    except (NotReached, ValueError, OSError) as error:
        fail(str(error))
    body, headers = sample_event(key)
    finding = examine(url, body, headers)
    webhook_id = headers["webhook-id"]
    _report(
        finding,
        f"stored as {webhook_id}; `reelworks webhooks show {webhook_id}` says what became of it",
        as_json=as_json,
    )


def _report(finding: Finding, success: str, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(finding))
    if finding.problem is not None:
        fail(f"{finding.url}: {finding.problem}")
    if not as_json:
        print_line(success)


def _address(url: str, var: Path) -> str:
    """Returns the address that is meant: the one given, else that of what runs here."""
    if url:
        return url
    up_file = read_up_file(var)
    if up_file is None:
        raise typer.BadParameter("must be given, since nothing runs here", param_hint="--url")
    return up_file.addresses["webhook"] + WEBHOOK_PATH


def _secret(secrets_file: Path | None, var: Path) -> str:
    """Returns what the service is told of its secrets, from where it is told."""
    if secrets_file is not None:
        return secrets_file.read_text("utf-8", "replace")
    given = os.environ.get("REPLICATE_WEBHOOK_SECRET")
    if given:
        return given
    token = os.environ.get("REPLICATE_API_TOKEN")
    if token:
        return fetch_secret(os.environ.get("REPLICATE_BASE_URL") or REPLICATE_URL, token)
    up_file = read_up_file(var)
    if up_file is not None and "simulator" in up_file.addresses:
        return fetch_secret(up_file.addresses["simulator"], SIMULATOR_TOKEN)
    raise ValueError("no secret to sign with: set REPLICATE_WEBHOOK_SECRET or --secrets-file")
