"""Reads a process's settings from the environment, or says in one line what is wrong with them."""

import ipaddress
import sys
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = [
    "DAY_S",
    "HostAndPort",
    "Settings",
    "exit_with",
    "http_address",
    "is_loopback",
    "load_settings",
    "split_address",
]

PREFIX = "REELWORKS_"
USAGE_ERROR = 2
PORT_MAX = 65_535
DAY_S = 86_400.0
"""The longest that most durations may be set to; a larger number is a mistake."""


def split_address(address: str) -> tuple[str, int]:
    """Returns host and port of `host:port`; raises ValueError if it is not that."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > PORT_MAX:
        raise ValueError("must be host:port")
    return host.strip("[]"), int(port)


def _host_and_port(address: str) -> str:
    split_address(address)
    return address


HostAndPort = Annotated[str, AfterValidator(_host_and_port)]
"""A setting that must be `host:port`."""


class Settings(BaseSettings):
    """Base of every service's settings: each field is read from `REELWORKS_<FIELD>`.

    A field with a `validation_alias` is read from that variable instead. An empty variable counts
    as unset, and settings do not change after they were read.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )


SettingsType = TypeVar("SettingsType", bound=Settings)


def load_settings(settings_type: type[SettingsType]) -> SettingsType:
    """Returns the settings of this process; a missing or wrong one ends it with exit code 2.

    Each wrong variable is named on standard error in a line of its own, without its value, which
    may be a secret.
    """
    try:
        return settings_type()
    except ValidationError as error:
        exit_with(
            *(
                f"{_variable(settings_type, problem['loc'])}: {_sentence(problem)}"
                for problem in error.errors(include_url=False, include_input=False)
            )
        )


def exit_with(*lines: str) -> NoReturn:
    """Ends the process with exit code 2 after writing `lines` to standard error."""
    for line in lines:
        sys.stderr.write(f"error: {line}\n")
    sys.exit(USAGE_ERROR)


def http_address(url: str) -> str:
    """Returns an http or https address without a slash at its end.

    Raises ValueError that says what is wrong with it, as the end of a sentence.
    """
    rule = "must be an http or https address"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # A bracket, or a port that is none.
        raise ValueError(rule) from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise ValueError(rule)
    if not url.isascii() or not url.isprintable() or " " in url or parts.username is not None:
        raise ValueError(rule)
    if "?" in url or "#" in url:
        raise ValueError("must have no query")
    return url.rstrip("/")


def is_loopback(address: str) -> bool:
    """Tells whether only this machine reaches `address`: `host:port` or `unix:path`."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # A name, and 127.example is as good a one as any.
        return host == "localhost"


def _variable(settings_type: type[Settings], location: tuple[int | str, ...]) -> str:
    """Returns the name of the environment variable that a validation error is about."""
    name = str(location[0]) if location else ""
    field = settings_type.model_fields.get(name)
    if field is None:
        # pydantic names an aliased field by its alias already.
        return name.upper()
    return PREFIX + name.upper()


def _sentence(problem: Any) -> str:
    """Returns what is wrong, in words for the person who sets the variable."""
    if problem["type"] == "missing":
        return "must be set"
    return str(problem["msg"]).removeprefix("Value error, ")
