"""Turns whatever was raised into an answer that says what was wrong, in the form of RFC 9457."""

import logging
import random
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.runtime.errors import InvalidRequest, Overloaded, ServiceError, ServiceFailed
from services.runtime.telemetry import get_logger
from services.web.headers import trace_id_of
from services.web.methods import allowed_methods
from services.web.problems import (
    MEDIA_TYPE,
    FieldProblem,
    Problem,
    Refused,
    Repeatable,
    ServiceFailure,
    body_of,
    headers_of,
    invalid,
    problem,
    problem_of,
)

__all__ = ["BrokenOff", "Guard", "RefusedBody", "answer_refusals", "failure_of", "refusal_answer"]

POINTER_CHARACTERS_MAX = 256
HEADERS_KEPT = ("allow", "www-authenticate", "content-range", "retry-after", "connection")

_CODES: Mapping[int, tuple[str, str]] = {
    400: ("MALFORMED_REQUEST", "The request cannot be read."),
    404: ("NOT_FOUND", "There is nothing at this address."),
    405: ("METHOD_NOT_ALLOWED", "This address does not take this method."),
    413: ("BODY_TOO_LARGE", "The body of the request is too large."),
    415: ("UNSUPPORTED_MEDIA_TYPE", "The body of the request has a type that is not taken here."),
}
"""What the framework refuses, by status: code and detail."""

logger = get_logger(__name__)


class RefusedBody(HTTPException):
    """A body that is not read to its end; the framework hands it on while it reads."""

    def __init__(self, refusal: Problem) -> None:
        super().__init__(refusal.status, refusal.detail, {"Connection": "close"})
        self.problem = refusal


class BrokenOff(Exception):
    """An answer that had begun and cannot be finished; the log says why already."""


def answer_refusals(app: FastAPI) -> None:
    """Has `app` answer what handlers raise with problems."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_exception)


def refusal_answer(
    connection: HTTPConnection, refusal: Problem, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Returns the answer that tells of a problem."""
    return JSONResponse(
        body_of(refusal, trace_id_of(connection)),
        refusal.status,
        {**headers_of(refusal), **(headers or {})},
        MEDIA_TYPE,
    )


class Guard:
    """Answers what nobody expected: its caller learns the id under which the log has the rest."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, whatever happens."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = False

        async def watched(message: Message) -> None:
            nonlocal began
            began = began or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            logger.debug("the caller left")
        except BrokenOff:
            raise
        except Exception:
            logger.exception("request failed", method=scope["method"], path=scope["path"])
            if began:
                # Only a broken connection says that this is not all.
                raise
            refusal = problem(500, "INTERNAL_FAILURE", "The service failed.")
            await refusal_answer(HTTPConnection(scope), refusal)(scope, receive, send)


async def _service_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError), "the handler is registered for these"
    jitter = random.random()  # noqa: S311  Spreads, hides nothing.
    repeatable = getattr(request.state, "repeatable", Repeatable.FREELY)
    refusal = problem_of(failure_of(error), jitter, repeatable)
    if refusal.status >= 500:
        level = logging.ERROR if isinstance(error, ServiceFailed) else logging.WARNING
        logger.log(
            max(level, error.log_level),
            "a service failed",
            status=error.status.name,
            reason=error.reason,
            cause=error.message,
        )
    return refusal_answer(request, refusal)


def failure_of(error: ServiceError) -> ServiceFailure:
    """Returns an error of a service as plain values."""
    violations: Sequence[tuple[str, str]] = ()
    if isinstance(error, InvalidRequest):
        violations = [(violation.field, violation.rule) for violation in error.violations]
    return ServiceFailure(
        status=error.status.name,
        reason=error.reason,
        message=error.message,
        metadata=error.metadata,
        violations=tuple(violations),
        retry_after_s=error.retry_after_s if isinstance(error, Overloaded) else None,
    )


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refused), "the handler is registered for these"
    return refusal_answer(request, error.problem, error.headers)


async def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError), "the handler is registered for these"
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return refusal_answer(
            request, invalid(FieldProblem("", "must be JSON"), code="MALFORMED_BODY")
        )
    return refusal_answer(request, invalid(*(_field_problem(one) for one in found)))


async def _http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException), "the handler is registered for these"
    kept = {
        name: value for name, value in (error.headers or {}).items() if name.lower() in HEADERS_KEPT
    }
    if isinstance(error, RefusedBody):
        return refusal_answer(request, error.problem, kept)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        kept = {"Allow": ", ".join(allowed_methods(request))}
    code, detail = _CODES.get(error.status_code, ("REFUSED", "The request was refused."))
    return refusal_answer(request, problem(error.status_code, code, detail), kept)


def _field_problem(found: Any) -> FieldProblem:
    """Returns what pydantic found, without the input, which may be a secret."""
    # The first word says where the field was: in the body, the query, the path or a header.
    _, *path = found["loc"] or ("",)
    pointer = "".join(_member(part) for part in path)[:POINTER_CHARACTERS_MAX]
    return FieldProblem(pointer, _rule(found))


def _member(part: object) -> str:
    """Returns the piece of a JSON pointer that names one member."""
    return "/" + str(part).replace("~", "~0").replace("/", "~1")


def _rule(found: Any) -> str:
    match found["type"]:
        case "missing":
            return "must be given"
        case "extra_forbidden":
            return "is not known"
        case _:
            message = str(found["msg"]).removeprefix("Value error, ")
            return message.replace("Input should be", "must be").replace("should", "must")
