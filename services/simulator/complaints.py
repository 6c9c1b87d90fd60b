"""Says what is wrong with what was given to the stand-in itself."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

__all__ = ["invalid_fields", "sentences"]


def sentences(error: ValidationError) -> list[str]:
    """Returns one sentence for each thing that is wrong, with its field."""
    return [f"{one['field']}: {one['rule']}" for one in invalid_fields(error)]


def invalid_fields(error: ValidationError) -> list[dict[str, str]]:
    """Returns field and rule of each thing that is wrong."""
    return [
        {"field": _place(one), "rule": one["msg"].removeprefix("Value error, ")}
        for one in error.errors(include_url=False)
    ]


def _place(error: ErrorDetails) -> str:
    return ".".join(str(part) for part in error["loc"]) or "body"
