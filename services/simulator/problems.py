"""What the API refuses, in the shape of Replicate's error answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "InvalidField",
    "Problem",
    "invalid_input",
    "malformed",
    "method_not_allowed",
    "not_found",
    "unauthenticated",
    "unknown_version",
    "wrong_deadline",
]


@dataclass(frozen=True, slots=True)
class InvalidField:
    """One thing that is wrong with a request body."""

    type: str
    """Kind of rule: `required`, `invalid_type`, `enum`, `number_gte` and the like."""
    field: str
    """Where: empty for the body itself, else such as `input` or `input.seed`."""
    description: str


class Problem(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(body.get("detail"))
        self.status = status
        self.body = body


def unauthenticated() -> Problem:
    """Returns the answer to a missing or unknown token."""
    return _problem(401, "Unauthenticated", "You did not pass a valid authentication token")


def not_found() -> Problem:
    """Returns the answer to an unknown path or id, and to another account's id."""
    return Problem(404, {"detail": "The requested resource could not be found.", "status": 404})


def method_not_allowed(method: str) -> Problem:
    """Returns the answer to a method that a path does not have."""
    return Problem(405, {"detail": f'Method "{method}" not allowed.', "status": 405})


def unknown_version() -> Problem:
    """Returns the answer to a version that no model has."""
    return _problem(
        422,
        "Invalid version or not permitted",
        "The specified version does not exist (or perhaps you don't have permission to use it?)",
    )


def wrong_deadline(detail: str) -> Problem:
    """Returns the answer to a `Cancel-After` header that cannot be taken."""
    return _problem(422, "Invalid Cancel-After header", detail)


def invalid_input(fields: Sequence[InvalidField]) -> Problem:
    """Returns the answer to a body with wrong fields; lists each of them."""
    lines = [
        f"- {field.field}: {field.description}" if field.field else f"- {field.description}"
        for field in fields
    ]
    body = {
        "detail": "".join(f"{line}\n" for line in lines),
        "status": 422,
        "title": "Input validation failed",
        "invalid_fields": [
            {"type": field.type, "field": field.field, "description": field.description}
            for field in fields
        ],
    }
    return Problem(422, body)


def malformed(status: int, title: str, detail: str) -> Problem:
    """Returns the answer to a body that could not be read at all."""
    return _problem(status, title, detail)


def _problem(status: int, title: str, detail: str) -> Problem:
    return Problem(status, {"title": title, "detail": detail, "status": status})
