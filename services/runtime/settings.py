"""Reads a process's settings from the environment, or says in one line what is wrong with them."""

import functools
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

__all__ = [
    "DAY_S",
    "OR_FILE",
    "HostAndPort",
    "OrFile",
    "Peer",
    "PeerAddress",
    "Settings",
    "exit_with",
    "http_address",
    "is_loopback",
    "is_loopback_target",
    "load_settings",
    "split_address",
]

PREFIX = "REELWORKS_"
USAGE_ERROR = 2
PORT_MAX = 65_535
FILE_BYTES_MAX = 64 * 1024
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


@dataclass(frozen=True, slots=True)
class Peer:
    """Marks a setting that says where another of our services answers."""


PLAINTEXT_RULE = (
    "is not on this machine; without certificates (REELWORKS_TLS_CERTIFICATE_FILE, "
    "REELWORKS_TLS_KEY_FILE, REELWORKS_TLS_CA_FILE) only loopback addresses are called"
)

PeerAddress = Annotated[str, Peer()]
"""A setting with the gRPC target of another service."""


class OrFile:
    """Marks a setting that may lie in a file, which `<VARIABLE>_FILE` names: a secret.

    Environments are inherited, shown and dumped; mounted files are not.
    """


OR_FILE = OrFile()
"""The mark, for `Annotated`."""


class Settings(BaseSettings):
    """Base of every service's settings: each field is read from `REELWORKS_<FIELD>`.

    A field with a `validation_alias` is read from that variable instead, one marked with `OR_FILE`
    also from the file that the variable with `_FILE` at its end names. An empty variable counts as
    unset, and settings do not change after they were read.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  There are no such files.
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  Nor such folders.
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns where values come from, the strongest first."""
        return init_settings, env_settings, _Files(settings_cls)


SettingsType = TypeVar("SettingsType", bound=Settings)


def load_settings(settings_type: type[SettingsType]) -> SettingsType:
    """Returns the settings of this process; a missing or wrong one ends it with exit code 2.

    Each wrong variable is named on standard error in a line of its own, without its value, which
    may be a secret.
    """
    try:
        return settings_type()
    except _WrongFile as error:
        exit_with(str(error))
    except ValidationError as error:
        exit_with(
            *(
                f"{_variable(settings_type, problem['loc'])}{_sentence(problem)}"
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
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    return _is_loopback_host(address.rpartition(":")[0])


def is_loopback_target(target: str) -> bool:
    """Tells whether a gRPC target leads nowhere but to this machine.

    A target is `host:port`, as `is_loopback` takes it, or begins with one of gRPC's schemes.
    """
    scheme, colon, rest = target.partition(":")
    match scheme if colon else "":
        case "unix" | "unix-abstract":
            return True
        case "ipv4" | "ipv6":
            addresses = rest.lstrip("/").split(",")
        case "dns" if rest.startswith("//"):
            # What a name server of somebody's choice calls localhost may be anywhere.
            authority, _, name = rest.removeprefix("//").partition("/")
            addresses = [] if authority else [name]
        case "dns":
            addresses = [rest]
        case _:
            addresses = [target]
    return bool(addresses) and all(map(is_loopback, addresses))


@functools.lru_cache(maxsize=256)
def _is_loopback_host(host: str) -> bool:
    host = host.strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # A name, and 127.example is as good a one as any.
        return host == "localhost" and _resolves_to_loopback(host)


def _resolves_to_loopback(name: str) -> bool:
    """Tells whether this machine, too, takes `name` for itself."""
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ipaddress.ip_address(address[0]).is_loopback for *_, address in found)


class _WrongFile(Exception):
    """A file that a setting cannot be read from; the text is a line for whoever set it."""


class _Files(PydanticBaseSettingsSource):
    """Reads the settings that lie in files."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Returns a field's value, None if it is in no file; raises _WrongFile."""
        alias = field.validation_alias
        key = alias if isinstance(alias, str) else field_name
        variable = alias if isinstance(alias, str) else PREFIX + field_name.upper()
        path = os.environ.get(f"{variable}_FILE")
        if not path:
            return None, key, False
        if os.environ.get(variable):
            raise _WrongFile(f"{variable}_FILE: {variable} is set too")
        return _content(Path(path), f"{variable}_FILE"), key, False

    def __call__(self) -> dict[str, Any]:
        """Returns all values that are in files."""
        return dict(self._values())

    def _values(self) -> Iterator[tuple[str, str]]:
        for name, field in self.settings_cls.model_fields.items():
            if any(isinstance(mark, OrFile) for mark in field.metadata):
                value, key, _ = self.get_field_value(field, name)
                if value is not None:
                    yield key, value


def _content(path: Path, variable: str) -> str:
    """Returns what is in a file of one secret, without the end of its line."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        text = content.decode().strip()
    except OSError as error:
        raise _WrongFile(f"{variable}: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise _WrongFile(f"{variable}: {path}: is no text") from None
    if len(content) > FILE_BYTES_MAX:
        raise _WrongFile(f"{variable}: {path}: has more than {FILE_BYTES_MAX} bytes")
    if not text:
        raise _WrongFile(f"{variable}: {path}: is empty")
    return text


def _variable(settings_type: type[Settings], location: tuple[int | str, ...]) -> str:
    """Returns the name of the environment variable that a validation error is about, and a colon.

    An error about several says their names itself.
    """
    if not location:
        return ""
    name = str(location[0])
    field = settings_type.model_fields.get(name)
    if field is None:
        # pydantic names an aliased field by its alias already.
        return f"{name.upper()}: "
    return f"{PREFIX}{name.upper()}: "


def _sentence(problem: Any) -> str:
    """Returns what is wrong, in words for the person who sets the variable."""
    if problem["type"] == "missing":
        return "must be set"
    return str(problem["msg"]).removeprefix("Value error, ")
