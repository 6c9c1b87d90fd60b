"""Reads JSON from bodies that say that they are JSON."""

from typing import TypeVar

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from services.web.callers import SignedIn
from services.web.forms import media_type_of
from services.web.problems import Refused, problem

__all__ = ["JSON", "JSON_BYTES_MAX", "JsonOnly", "checked", "read_json", "unsupported"]

JSON = "application/json"
JSON_BYTES_MAX = 64 * 1024

BodyType = TypeVar("BodyType", bound=BaseModel)


async def _json_only(request: Request, _caller: SignedIn) -> None:
    """Refuses a body of another type, which would else be called malformed."""
    if media_type_of(request) != JSON and await request.body():
        raise unsupported(JSON)


JsonOnly = Depends(_json_only)
"""For `dependencies=[…]` of a route whose body is JSON."""


async def read_json(request: Request, kind: type[BodyType]) -> BodyType:
    """Returns the body of a request; for routes that take other types too.

    Such a route takes more bytes than JSON may have. Raises Refused for one that has too many, and
    RequestValidationError.
    """
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > JSON_BYTES_MAX:
            detail = f"The body has more than {JSON_BYTES_MAX} bytes."
            metadata = {"limit": JSON_BYTES_MAX}
            raise Refused(problem(413, "BODY_TOO_LARGE", detail, metadata=metadata))
    try:
        return kind.model_validate_json(bytes(content))
    except ValidationError as error:
        raise _refusal(error) from None


def checked(kind: type[BodyType], fields: dict[str, object]) -> BodyType:
    """Returns a body that came in another form than JSON; raises RequestValidationError."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise _refusal(error) from None


def unsupported(*types: str) -> Refused:
    """Returns the refusal of a body that is none of `types`."""
    return Refused(
        problem(415, "UNSUPPORTED_MEDIA_TYPE", f"The body must be {' or '.join(types)}.")
    )


def _refusal(error: ValidationError) -> RequestValidationError:
    errors = error.errors(include_url=False, include_input=False)
    return RequestValidationError([one | {"loc": ("body", *one["loc"])} for one in errors])
