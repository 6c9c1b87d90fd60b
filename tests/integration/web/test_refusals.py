"""Whatever is refused or goes wrong has one form, an id that the log knows, and no secrets."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Body, Query
from pydantic import BaseModel, ConfigDict
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from services.runtime.errors import (
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    NotAllowed,
    NotFound,
    Overloaded,
    PreconditionFailed,
    ServiceError,
    ServiceFailed,
    Unavailable,
)
from tests.integration.web.studio import Studio

RAISED: dict[str, ServiceError] = {
    "invalid": InvalidRequest([FieldViolation("prompt", "must be longer")]),
    "missing": NotFound("GENERATION_NOT_FOUND", "No such generation.", generation_id="x"),
    "other": AlreadyExists("ID_REUSED", "It was used otherwise.", field="prompt"),
    "poor": PreconditionFailed("INSUFFICIENT_CREDITS", "Too few.", required=20, available=5),
    "ended": PreconditionFailed("GENERATION_ENDED", "It has ended."),
    "busy": Overloaded("TOO_MANY", "Later.", 7.2),
    "conflict": Conflict("CONFLICT", "Again."),
    "away": Unavailable("", "ipv4:10.1.2.3:50051: connection refused"),
    "late": DeadlineExceeded("", "Deadline Exceeded"),
    "stranger": NotAllowed("CALLER_NOT_ALLOWED", "Not from here.", role="unknown", method="/x"),
    "broken": ServiceFailed("", "UNKNOWN: secret_table has no column"),
}


class Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[str, Body(min_length=3)]
    inner: dict[str, int] = {}


@pytest.fixture
async def client(lobby: Studio) -> httpx.AsyncClient:
    """A client of the app, which has some routes more."""

    @lobby.app.get("/raise/{name}")
    async def raise_it(name: str) -> None:
        raise RAISED[name]

    @lobby.app.get("/fail")
    async def fail() -> None:
        raise RuntimeError("a secret word")

    @lobby.app.post("/wish")
    async def wish(body: Wish, times: Annotated[int, Query(le=5)] = 1) -> dict[str, int]:
        return {"characters": len(body.prompt) * times}

    return await lobby.client()


def problem_in(answer: httpx.Response) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["status"] == answer.status_code
    assert found["trace_id"] == answer.headers["x-request-id"]
    assert found["type"] == "about:blank"
    assert {"title", "detail", "code"} <= found.keys()
    return found


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("invalid", 422, "INVALID_FIELD"),
        ("missing", 404, "GENERATION_NOT_FOUND"),
        ("other", 409, "ID_REUSED"),
        ("poor", 402, "INSUFFICIENT_CREDITS"),
        ("ended", 409, "GENERATION_ENDED"),
        ("busy", 429, "TOO_MANY"),
        ("conflict", 503, "CONFLICT"),
        ("away", 503, "UNAVAILABLE"),
        ("late", 504, "DEADLINE_EXCEEDED"),
        ("stranger", 500, "INTERNAL_FAILURE"),
        ("broken", 500, "INTERNAL_FAILURE"),
    ],
)
async def test_what_a_service_raises_is_told_in_http(
    client: httpx.AsyncClient, name: str, status: int, code: str
) -> None:
    with capture_logs() as lines:
        answer = await client.get(f"/raise/{name}")

    found = problem_in(answer)
    assert (answer.status_code, found["code"]) == (status, code)
    assert ("retry-after" in answer.headers) == (status in (429, 503))
    for inner in ("10.1.2.3", "secret_table", "unknown"):
        assert inner not in answer.text
    failures = [line for line in lines if line["event"] == "a service failed"]
    assert len(failures) == (status >= 500)


async def test_a_shortfall_is_exact(client: httpx.AsyncClient) -> None:
    found = problem_in(await client.get("/raise/poor"))

    assert (found["required"], found["available"], found["shortfall"]) == (20, 5, 15)


async def test_a_service_says_when_to_come_back(client: httpx.AsyncClient) -> None:
    answer = await client.get("/raise/busy")

    assert answer.headers["retry-after"] == "8"
    assert problem_in(answer)["retry_after_s"] == 7.2


async def test_a_defect_is_logged_with_its_id_and_told_without_its_stack(
    client: httpx.AsyncClient,
) -> None:
    with capture_logs() as lines:
        answer = await client.get("/fail")

    assert problem_in(answer)["code"] == "INTERNAL_FAILURE"
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "RuntimeError" not in answer.text
    assert answer.headers["x-content-type-options"] == "nosniff"
    (line,) = [line for line in lines if line["event"] == "request failed"]
    assert (line["path"], line["log_level"], line["exc_info"]) == ("/fail", "error", True)


async def test_the_log_speaks_of_a_request_by_its_id(client: httpx.AsyncClient) -> None:
    with capture_logs(processors=[merge_contextvars]) as lines:
        answer = await client.get("/fail")

    assert {line["trace_id"] for line in lines} == {answer.headers["x-request-id"]}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "NOT_FOUND"),
        ("GET", "/api/nothing", 404, "NOT_FOUND"),
        ("GET", "/api/me/", 404, "NOT_FOUND"),
        ("PUT", "/api/me", 405, "METHOD_NOT_ALLOWED"),
        ("OPTIONS", "/api/me", 405, "METHOD_NOT_ALLOWED"),
        ("TRACE", "/api/me", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/docs/files/nothing", 404, "NOT_FOUND"),
    ],
)
async def test_what_is_not_there_has_the_same_form(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await client.request(method, path)

    assert (problem_in(answer)["code"], answer.status_code) == (code, status)
    assert ("allow" in answer.headers) == (status == 405)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/prompt"]),
        ({"prompt": "x"}, ["/prompt"]),
        ({"prompt": 7}, ["/prompt"]),
        ({"prompt": "long enough", "a/b": 1}, ["/a~1b"]),
        ({"prompt": "long enough", "inner": {"deep": "x"}}, ["/inner/deep"]),
        ({"prompt": "x", "more": 1}, ["/more", "/prompt"]),
        (["list"], [""]),
        ("text", [""]),
        (None, [""]),
    ],
    ids=str,
)
async def test_every_wrong_field_is_named_by_its_pointer(
    client: httpx.AsyncClient, body: object, pointers: list[str]
) -> None:
    answer = await client.post("/wish", json=body)

    assert answer.status_code == 422
    found = problem_in(answer)
    assert sorted(error["pointer"] for error in found["errors"]) == pointers
    assert all(error["detail"] for error in found["errors"])


async def test_a_wrong_query_is_named_too(client: httpx.AsyncClient) -> None:
    answer = await client.post("/wish?times=9", json={"prompt": "long enough"})

    assert [error["pointer"] for error in problem_in(answer)["errors"]] == ["/times"]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 60_000, b"nul"])
async def test_what_is_no_json_is_refused(client: httpx.AsyncClient, content: bytes) -> None:
    answer = await client.post(
        "/wish", content=content, headers={"Content-Type": "application/json"}
    )

    assert problem_in(answer)["code"] in ("MALFORMED_BODY", "MALFORMED_REQUEST")
    assert answer.status_code in (400, 422)


@pytest.mark.parametrize("size_bytes", [64 * 1024, 64 * 1024 + 1])
@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_body_may_have_so_many_bytes(
    client: httpx.AsyncClient, size_bytes: int, is_announced: bool
) -> None:
    content = b'{"prompt":"' + b"x" * (size_bytes - 13) + b'"}'

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, size_bytes, 1000):
            yield content[start : start + 1000]

    answer = await client.post(
        "/wish",
        content=content if is_announced else pieces(),
        headers={"Content-Type": "application/json"},
    )

    if size_bytes == 64 * 1024:
        assert answer.json() == {"characters": size_bytes - 13}
    else:
        assert problem_in(answer)["code"] == "BODY_TOO_LARGE"
        assert answer.json()["limit"] == 64 * 1024
        assert answer.headers["content-security-policy"]


async def test_a_length_that_is_none_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/wish", content=b"{}", headers={"Content-Length": "-1"})

    assert answer.status_code == 413
