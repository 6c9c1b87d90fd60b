"""What the API says of itself: agreed on, whole, and held by every route."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.web.problems import MEDIA_TYPE
from tests.integration.web.openapi_file import COMMAND, FILE, describe, written
from tests.integration.web.studio import Studio

Operation = tuple[str, str, dict[str, Any]]

OPEN = {"/api/sign-in", "/api/sign-out"}
STREAM = "/api/events"


@pytest.fixture
async def described(tmp_path: Path) -> Any:
    return await describe(tmp_path)


def operations(described: Any) -> Iterator[Operation]:
    for path, by_method in described["paths"].items():
        for method, operation in by_method.items():
            yield method.upper(), path, operation


async def test_the_api_is_what_was_agreed_on(described: Any) -> None:
    assert written(described) == FILE.read_text(), (
        f"The API has changed. If that is meant, write it down: {COMMAND}"
    )


async def test_each_operation_has_a_name_of_its_own_and_a_place(described: Any) -> None:
    names = [operation["operationId"] for _, _, operation in operations(described)]
    tags = {tag["name"] for tag in described["tags"]}

    assert len(names) == len(set(names)) > 15
    for _, path, operation in operations(described):
        assert operation.get("description"), path
        if path.startswith("/api/"):
            assert len(operation["tags"]) == 1, path
            assert set(operation["tags"]) <= tags, path


async def test_every_refusal_is_a_problem(described: Any) -> None:
    problem = described["components"]["schemas"]["Problem"]
    refusals = [
        (path, status, response)
        for _, path, operation in operations(described)
        for status, response in operation["responses"].items()
        if status.startswith(("4", "5")) and path.startswith(("/api/", "/media"))
    ]

    assert {"type", "title", "status", "detail", "code", "trace_id"} <= set(problem["required"])
    assert len(refusals) > 100
    for path, status, response in refusals:
        assert list(response["content"]) == [MEDIA_TYPE], (path, status)
        schema = response["content"][MEDIA_TYPE]["schema"]
        assert schema == {"$ref": "#/components/schemas/Problem"}, (path, status)
    assert "HTTPValidationError" not in json.dumps(described)


async def test_every_field_is_explained(described: Any) -> None:
    for name, schema in described["components"]["schemas"].items():
        for field, about in schema.get("properties", {}).items():
            assert "$ref" in about or about.get("description") or name == "Problem", (name, field)


async def test_whoever_is_not_signed_in_is_told_so_by_every_route(lobby: Studio) -> None:
    asked = 0
    strangers = [
        await lobby.client(),
        await lobby.client(Authorization="Bearer nonsense"),
        await lobby.client(Cookie="reelworks_session=nonsense"),
    ]
    for method, path, operation in operations(lobby.app.openapi()):
        if not path.startswith("/api/") or path in OPEN:
            assert "security" not in operation, path
            continue
        assert operation["security"], path
        assert "401" in operation["responses"], path
        for stranger in strangers:
            answer = await ask(stranger, method, path, operation)

            assert answer.status_code == 401, (method, path, answer.text)
            assert answer.headers["Content-Type"] == MEDIA_TYPE
            asked += 1

    assert asked >= 3 * 14


async def ask(
    client: httpx.AsyncClient, method: str, path: str, operation: dict[str, Any]
) -> httpx.Response:
    """Asks with a body of the right kind, empty as it is."""
    address = path.replace("{generation_id}", str(uuid.uuid4()))
    types = operation.get("requestBody", {}).get("content", {})
    content: dict[str, Any] = {}
    if "application/json" in types:
        content = {"json": {}}
    elif types:
        content = {"files": {"image": b""}}
    return await client.request(method, address, **content)
