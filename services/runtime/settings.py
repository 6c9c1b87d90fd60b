"""Reads a process's settings from the environment, or says in one line what is wrong with them."""

import sys
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

__all__ = ["Settings", "exit_with", "load_settings"]

PREFIX = "REELWORKS_"
USAGE_ERROR = 2


class Settings(BaseSettings):
    """Base of every service's settings: each field is read from `REELWORKS_<FIELD>`.

    A field with a `validation_alias` is read from that variable instead. An empty variable counts
    as unset, and settings do not change after they were read.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, hide_input_in_errors=True
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
