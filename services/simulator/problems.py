"""What the API refuses, in the shape of Replicate's error answers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

__all__ = [
    "InvalidField",
    "Problem",
    "failure",
    "invalid_input",
    "malformed",
    "method_not_allowed",
    "no_credit",
    "not_cancelable",
    "not_found",
    "throttled",
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

    def __init__(
        self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(body.get("detail"))
        self.status = status
        self.body = body
        self.headers = headers or {}


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


def throttled(retry_after_s: float, in_header: bool = True, in_body: bool = True) -> Problem:
    """Returns the answer to a call above a limit, with the whole seconds until the next one."""
    seconds = math.ceil(retry_after_s)
    detail = f"Request was throttled. Expected available in {seconds} seconds."
    told: dict[str, Any] = {"retry_after": seconds} if in_body else {}
    if not (in_header or in_body):
        detail = "Request was throttled."
    body = {"title": "Too Many Requests", "detail": detail, "status": 429, **told}
    return Problem(429, body, {"Retry-After": str(seconds)} if in_header else None)


def no_credit() -> Problem:
    """Returns the answer to an account without credit."""
    return _problem(
        402,
        "Insufficient credit",
        "You have insufficient credit to run this model. Go to"
        " https://replicate.com/account/billing#billing to purchase credit.",
    )


def not_cancelable() -> Problem:
    """Returns the answer to the cancel of a finished prediction, where that is refused."""
    return _problem(409, "Conflict", "The prediction has already finished")


def failure(status: int) -> Problem:
    """Returns an error of the service itself, which says nothing about the request."""
    title = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"
    return _problem(status, title, f"{title}. Please try again later.")


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
