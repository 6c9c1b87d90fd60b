"""Describes the API for programs, its refusals too (OpenAPI)."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.web.problems import MEDIA_TYPE

__all__ = ["ANYBODY", "describe", "problems"]

TITLE = "Reelworks"
VERSION = "1"
DESCRIPTION = """Videos from prompts, paid in credits.

A video is a *generation*: its price is reserved when it is created, charged when the video is
there, and given back when there is none. Everything can be asked for again: a call that spends
takes an `Idempotency-Key`, and the others lead to the same end however often they are made.

What is refused is answered as `application/problem+json` (RFC 9457), whose `code` is stable.
"""
ANYBODY = ("/api/sign-in", "/api/sign-out")
"""Where nobody has to be signed in."""
TAGS = (
    ("generations", "Videos being made, and made."),
    ("credits", "What is left, and why."),
    ("models", "What can be asked for."),
    ("uploads", "Images to start videos from."),
    ("events", "What changes, as it changes."),
    ("sign-in", "Who is calling."),
    ("media", "The files themselves, where they are kept in a local folder."),
)
_RETRY_AFTER = {
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
}
_REFUSALS: Mapping[int, str] = {
    400: "The body cannot be read.",
    401: "Nobody is signed in.",
    402: "Too few credits: `required`, `available` and `shortfall` say how many.",
    403: "Not allowed: a write by cookie needs the header `X-Reelworks: 1`.",
    404: "The caller has no such thing.",
    408: "The body took too long to arrive.",
    409: "It cannot be done as things are; `code` says why.",
    413: "The body is too large.",
    415: "The body is of a type that is not understood.",
    416: "The file ends before the range begins.",
    422: "Fields are malformed; `errors` lists all of them.",
    429: "Too much at once; come back later.",
    500: "A defect of ours.",
    503: "A part of the service is away; repeat the request.",
    504: "It took too long, and whether it was done is open: repeat it with the same key.",
}
_PROBLEM: Mapping[str, Any] = {
    "title": "Problem",
    "description": "Why a request is refused (RFC 9457). `code` may bring members of its own.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "trace_id"],
    "properties": {
        "type": {"type": "string", "examples": ["about:blank"]},
        "title": {"type": "string", "description": "What the status says, in words."},
        "status": {"type": "integer", "description": "Of the HTTP answer."},
        "detail": {"type": "string", "description": "What happened, for people."},
        "code": {
            "type": "string",
            "description": "A stable name for programs.",
            "examples": ["INSUFFICIENT_CREDITS"],
        },
        "trace_id": {"type": "string", "description": "To be named when help is asked for."},
        "errors": {
            "type": "array",
            "description": "All fields that are malformed.",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {"type": "string", "examples": ["/prompt"]},
                    "detail": {"type": "string", "description": "What the field must be."},
                },
            },
        },
        "required": {"type": "integer", "description": "The credits that it costs."},
        "available": {"type": "integer", "description": "The credits that are there."},
        "shortfall": {"type": "integer", "description": "The credits that are missing."},
        "retry_after_s": {"type": "number", "description": "When to come back, in seconds."},
    },
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the answers of a route that refuses with these statuses, and by a defect."""
    return {
        status: {
            "description": _REFUSALS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        | ({"headers": _RETRY_AFTER} if status in (429, 503) else {})
        for status in sorted({*statuses, 500})
    }


def describe(app: FastAPI) -> None:
    """Has `app` answer its description with what FastAPI does not know of it."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _description(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way.


def _description(app: FastAPI) -> dict[str, Any]:
    described = get_openapi(
        title=TITLE,
        version=VERSION,
        description=DESCRIPTION,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in TAGS],
    )
    components = described.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = _PROBLEM
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": "reelworks_session",
            "description": "The page's; under https its name begins with `__Host-`. A write needs "
            "the header `X-Reelworks: 1` besides.",
        },
    }
    for path, operations in described["paths"].items():
        for operation in operations.values():
            _correct(operation["responses"])
            if path.startswith("/api/") and path not in ANYBODY:
                operation["security"] = [{"bearer": []}, {"session": []}]
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)
    return described


def _correct(responses: dict[str, Any]) -> None:
    """Takes out what FastAPI would answer to malformed fields, and we never do.

    A route whose fields can be malformed says so itself.
    """
    if MEDIA_TYPE not in responses.get("422", {}).get("content", {MEDIA_TYPE: {}}):
        del responses["422"]
