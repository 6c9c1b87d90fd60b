"""The shapes of answers beside those of real traffic, which Replicate's own client recorded.

The recordings are of 2023 and 2024; what differs since, or by intention, stands here by name.
"""

import re
from typing import Any

import pytest

from tests.integration.simulator.harness import Start
from tests.integration.simulator.raw_call import raw_create

SINCE = {"data_removed", "source"}
"""What the documentation of predictions names and the recordings do not have yet."""
LEFTOVERS = {"webhook_completed"}
"""What the recordings have and the documentation does not name any more."""
HOOK = {"webhook", "webhook_events_filter"}

CREATED: dict[str, Any] = {
    "id": r"[a-z0-9]{26}",
    "model": r"[\w.-]+/[\w.-]+",
    "version": r"hidden|[0-9a-f]{64}|dp?-[0-9a-f]{32}",
    "input": dict,
    "logs": "",
    "error": None,
    "status": "starting",
    "created_at": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6,9}Z",
    "urls": {"cancel", "get"},
}
READ: dict[str, Any] = {
    **CREATED,
    "logs": r"(?s)Using seed: \d+\n.*",
    "status": "succeeded",
    "created_at": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
    "started_at": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
    "completed_at": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z",
    "metrics": {"predict_time", "total_time"},
    "output": r"https?://.+",
    "webhook_completed": None,
}
FILE: dict[str, Any] = {
    "id": r"[A-Za-z0-9]{48}",
    "name": str,
    "content_type": str,
    "size": int,
    "etag": r"[0-9a-f]{32}",
    "checksums": {"sha256", "md5"},
    "metadata": dict,
    "created_at": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
    "expires_at": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z",
    "urls": {"get"},
}


def fits(value: object, shape: object) -> bool:
    """Whether a value is of a type, has exactly these keys, or looks like a text."""
    match shape:
        case type():
            return isinstance(value, shape)
        case set():
            return isinstance(value, dict) and set(value) == shape
        case str():
            return isinstance(value, str) and re.fullmatch(shape, value) is not None
        case _:
            return value == shape


def misfits(answer: dict[str, Any], shape: dict[str, Any]) -> list[str]:
    return [key for key, one in shape.items() if key in answer and not fits(answer[key], one)]


async def test_a_create_answer_looks_as_recorded(start: Start) -> None:
    running = await start(speed=0.01)

    heard = await raw_create(running)

    assert set(heard.json) ^ set(CREATED) == SINCE
    assert misfits(heard.json, CREATED) == []
    assert heard.headers["content-type"].startswith("application/json")
    assert heard.headers["ratelimit-remaining"] == "599"
    assert heard.headers["ratelimit-reset"] == "1"


async def test_a_read_looks_as_recorded(start: Start) -> None:
    running = await start(video="stamp")
    created = await running.create(webhook="http://127.0.0.1:1/hook")

    read = await running.reaches(created["id"], "succeeded")

    assert set(read) ^ set(READ) == SINCE | LEFTOVERS | HOOK
    assert misfits(read, READ) == []


async def test_an_uploaded_file_looks_as_recorded(start: Start) -> None:
    running = await start()

    status, file = await running.upload(b"")

    assert status == 201
    assert set(file) == set(FILE)
    assert misfits(file, FILE) == []
    # The recording is of an empty file, too.
    assert file["etag"] == "d41d8cd98f00b204e9800998ecf8427e"
    assert file["checksums"]["sha256"].startswith("e3b0c44298fc1c149afbf4c8996fb924")


@pytest.mark.parametrize("wrong", [("id", "short"), ("urls", {"get": "x"}), ("error", "some")])
def test_what_does_not_fit_is_noticed(wrong: tuple[str, Any]) -> None:
    assert misfits(dict([wrong]), CREATED) == [wrong[0]]
