"""`reelworks certs`: makes a private authority and the certificates of all services."""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from services.cli.authority import Authority, is_host, names_of
from services.cli.options import WRONG_USAGE, JsonOption
from services.cli.output import Column, print_error, print_json, print_line, print_table

__all__ = ["ROLES", "NotMade", "Written", "certs", "make_certificates", "tls_settings"]

ROLES = ("credits", "generation", "webhook", "web", "operator")
SERVERS = ("credits", "generation", "webhook")
"""The roles that answer by gRPC; a key of another one cannot pose as one of them."""
EVERY_ROLE = "all"
AUTHORITY = "ca.pem"
AUTHORITY_KEY = Path("private", "ca.key")
CERTIFICATE, KEY, AUTHORITY_COPY = "tls.crt", "tls.key", "ca.crt"
DAYS_MAX = 3650

_COLUMNS = (Column("FILE"), Column("WHAT"), Column("VALID UNTIL (UTC)"))


class NotMade(Exception):
    """Certificates that were not made; the text is a line for whoever asked."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written."""

    file: Path
    what: str
    """What it is, in words."""
    valid_until: datetime


def certs(
    folder: Annotated[Path, typer.Option(help="Where they are written.")] = Path("var/certs"),
    dns: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ROLE=NAME",
            help="A DNS name or IP address by which a role is called, besides localhost and its "
            "own name, as credits=credits.internal; repeatable. all=NAME is in every certificate: "
            "only for a machine on which all of them run.",
        ),
    ] = None,
    days: Annotated[
        int, typer.Option(min=1, max=DAYS_MAX, help="How long the services' are good.")
    ] = 90,
    renew: Annotated[
        bool, typer.Option("--renew", help="New ones from the authority that is there.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write over what is there, the authority too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a private authority, good for 10 years, and certificates of services and operators.

    Running services take renewed ones up by themselves; without --dns they name what they named
    before, with it only what it says. With --force, everything that believed the old authority
    stops talking to the rest.

    With --json: a line {file, what, valid_until} for each.
    """
    hosts = _hosts_of(dns or [])
    if renew and force:
        raise typer.BadParameter("keeps the authority that --force replaces", param_hint="--renew")
    try:
        written = make_certificates(folder, hosts, timedelta(days=days), renew=renew, force=force)
    except NotMade as error:
        print_error(str(error))
        raise typer.Exit(WRONG_USAGE) from None
    except OSError as error:
        print_error(f"{error.filename or folder}: {error.strerror}")
        raise typer.Exit(WRONG_USAGE) from None
    if as_json:
        for file in written:
            print_json({"file": str(file.file), "what": file.what, "valid_until": file.valid_until})
        return
    print_table(_COLUMNS, [(file.file, file.what, file.valid_until) for file in written])
    print_line()
    print_line(f"Keep {folder / AUTHORITY_KEY} apart: who has it can be any of them.")
    print_line(
        f"`reelworks up --certs {shlex.quote(str(folder))}` uses them; for the other commands:"
    )
    for name, value in tls_settings(folder, "operator").items():
        print_line(f"  export {name}={shlex.quote(value)}")


def tls_settings(folder: Path, role: str) -> dict[str, str]:
    """Returns the settings of a process that is to be a role, with the certificates in `folder`."""
    files = {"CERTIFICATE": CERTIFICATE, "KEY": KEY, "CA": AUTHORITY_COPY}
    return {
        f"REELWORKS_TLS_{name}_FILE": str(folder.absolute() / role / file)
        for name, file in files.items()
    }


def make_certificates(
    folder: Path,
    hosts: Mapping[str, Sequence[str]],
    lifetime: timedelta,
    *,
    renew: bool = False,
    force: bool = False,
) -> list[Written]:
    """Writes certificates for all roles, each good for its `hosts` too; raises NotMade.

    Without any host, each names what the one before it did.
    """
    now = datetime.now(UTC)
    if renew:
        authority = _read_authority(folder)
        if authority.expires_at <= now:
            raise NotMade(f"the authority in {folder} is no longer believed; --force makes another")
        written = []
    else:
        if (folder / AUTHORITY).exists() and not force:
            raise NotMade(
                f"{folder / AUTHORITY} is there already; --renew makes new certificates from it, "
                "--force makes everything anew"
            )
        authority = Authority.new(now)
        written = _write_authority(folder, authority)
    for role in ROLES:
        named = hosts.get(role, ()) if hosts else _hosts_before(folder / role)
        written += _write_role(folder, role, authority, named, now, lifetime)
    return written


def _hosts_of(given: Sequence[str]) -> dict[str, list[str]]:
    """Returns what each role is called; raises BadParameter that says which one is wrong."""
    hosts: dict[str, list[str]] = {}
    for one in given:
        role, separator, name = one.partition("=")
        if not separator or role not in (*ROLES, EVERY_ROLE):
            # In a certificate of all roles, each could pose as each.
            raise typer.BadParameter(
                f"{one} must be ROLE=NAME, as credits=credits.internal; a role is one of "
                f"{', '.join(ROLES)}, or {EVERY_ROLE}",
                param_hint="--dns",
            )
        if not is_host(name):
            raise typer.BadParameter(f"{name} is no DNS name", param_hint="--dns")
        for named in ROLES if role == EVERY_ROLE else (role,):
            hosts.setdefault(named, []).append(name)
    return hosts


def _read_authority(folder: Path) -> Authority:
    try:
        return Authority.read(
            (folder / AUTHORITY).read_bytes(), (folder / AUTHORITY_KEY).read_bytes()
        )
    except FileNotFoundError as error:
        raise NotMade(f"{error.filename} is missing, which --renew needs") from None
    except (ValueError, TypeError) as error:
        raise NotMade(f"the authority in {folder} cannot be used: {error}") from None


def _write_authority(folder: Path, authority: Authority) -> list[Written]:
    _write(folder / AUTHORITY_KEY, authority.key, is_secret=True)
    _write(folder / AUTHORITY, authority.certificate)
    return [
        Written(folder / AUTHORITY_KEY, "the authority's key", authority.expires_at),
        Written(folder / AUTHORITY, "the authority", authority.expires_at),
    ]


def _write_role(
    folder: Path,
    role: str,
    authority: Authority,
    hosts: Sequence[str],
    now: datetime,
    lifetime: timedelta,
) -> list[Written]:
    place = folder / role
    issued = authority.issue(role, hosts, now, lifetime, is_server=role in SERVERS)
    # One after the other, each at once: who reads them in between keeps what it has.
    _write(place / AUTHORITY_COPY, authority.certificate)
    _write(place / KEY, issued.key, is_secret=True)
    _write(place / CERTIFICATE, issued.certificate)
    return [
        Written(place / CERTIFICATE, f"certificate of {role}", issued.expires_at),
        Written(place / KEY, "its key", issued.expires_at),
        Written(place / AUTHORITY_COPY, "the authority", authority.expires_at),
    ]


def _hosts_before(place: Path) -> list[str]:
    """Returns the hosts that the certificate named that is there."""
    try:
        return list(names_of((place / CERTIFICATE).read_bytes()))
    except (OSError, ValueError):
        return []


def _write(path: Path, content: bytes, *, is_secret: bool = False) -> None:
    """Writes a file that readers see whole, old or new; a secret for this user's eyes only."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    mode = 0o600 if is_secret else 0o644
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    draft.replace(path)
