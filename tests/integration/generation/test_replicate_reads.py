"""Lists, schemas and files of the provider, also of one that answers oddly or not at all."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from services.generation.replicate import (
    Created,
    CreateRequest,
    Listed,
    Missing,
    Replicate,
    Schemas,
    Unreachable,
    Uploaded,
)
from tests.integration.generation.raw_http import RawServer, Script, raw_server, reply
from tests.integration.generation.simulator_process import (
    TOKEN,
    Simulator,
    running_simulator,
)

MODEL = "wan-video/wan-2.1-1.3b"
SINCE = datetime(2026, 7, 1, 14, 0, 0, 250, timezone(timedelta(hours=2)))
ONE = {"id": "one", "status": "starting", "input": {"seed": 7}}
TWO = {"id": "two", "status": "succeeded", "output": None, "data_removed": True}
HTML = b"<html><h1>502 Bad Gateway</h1></html>"
HOUR_S = 3600


def problem(status: int) -> dict[str, object]:
    return {"title": "A problem", "detail": "Not now.", "status": status}


def page(*results: object, following: object = None) -> dict[str, object]:
    return {"previous": None, "next": following, "results": list(results)}


def model(latest_version: object) -> dict[str, object]:
    return {"owner": "wan-video", "name": "wan-2.1-1.3b", "latest_version": latest_version}


def uploaded(**fields: object) -> dict[str, object]:
    return {"id": "file", "urls": {"get": "https://api.replicate.com/v1/files/file"}} | fields


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server(reply(200, page(ONE, TWO))) as running:
        yield running


@pytest.fixture
async def provider(server: RawServer) -> AsyncIterator[Replicate]:
    opened = Replicate("r8_secret", server.origin, call_s=5)
    yield opened
    await opened.close()


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with running_simulator(speed=1000) as running:
        yield running


@pytest.fixture
async def simulated(simulator: Simulator) -> AsyncIterator[Replicate]:
    await simulator.reset()
    opened = Replicate(TOKEN, simulator.api, call_s=10)
    yield opened
    await opened.close()


async def listed(provider: Replicate, cursor: str | None = None) -> Listed:
    found = await provider.list_since(SINCE, cursor)
    assert isinstance(found, Listed), found
    return found


async def test_a_list_asks_for_what_was_created_since_a_moment(
    server: RawServer, provider: Replicate
) -> None:
    found = await listed(provider)

    [heard] = server.heard
    assert heard.method == "GET"
    assert heard.path == "/v1/predictions?created_after=2026-07-01T12%3A00%3A00.000250Z"
    assert heard.headers["authorization"] == "Bearer r8_secret"
    assert [p.job_id for p in found.predictions] == ["one", "two"]
    assert (found.predictions[0].seed, found.predictions[1].data_removed) == (7, True)
    assert (found.next_cursor, found.complete) == (None, True)


async def test_a_list_goes_on_where_its_page_leads(server: RawServer, provider: Replicate) -> None:
    path = "/v1/predictions?created_after=x&cursor=cD0x%3D%3D"
    server.script = reply(200, page(ONE, following=server.origin + path))
    first = await listed(provider)
    server.script = reply(200, page(TWO))

    second = await listed(provider, first.next_cursor)

    assert first.complete
    assert server.heard[1].path == path
    assert [p.job_id for p in second.predictions] == ["two"]
    assert (second.next_cursor, second.complete) == (None, True)


@pytest.mark.parametrize(
    "following",
    [
        "http://127.0.0.1:1/v1/predictions?cursor=x",
        "https://127.0.0.1:{port}/v1/predictions?cursor=x",
        "http://localhost:{port}/v1/predictions?cursor=x",
        "http://evil@127.0.0.1:{port}/v1/predictions?cursor=x",
        "http://127.0.0.1:{port}@evil.example/v1/predictions",
        "//evil.example/v1/predictions",
        "/v1/predictions?cursor=x",
        "http://[",
        "\ud800",
        "x" * 100_000,
        7,
        {"url": "x"},
    ],
)
async def test_a_page_that_leads_elsewhere_is_not_followed_and_not_complete(
    server: RawServer, provider: Replicate, following: object
) -> None:
    if isinstance(following, str):
        following = following.replace("{port}", str(server.port))
    server.script = reply(200, page(ONE, following=following))

    found = await listed(provider)

    assert [p.job_id for p in found.predictions] == ["one"]
    assert (found.next_cursor, found.complete) == (None, False)


async def test_the_token_is_not_sent_to_a_foreign_cursor(
    server: RawServer, provider: Replicate
) -> None:
    async with raw_server(reply(200, page(ONE))) as foreign:
        found = await provider.list_since(SINCE, f"{foreign.origin}/v1/predictions?cursor=x")

        assert isinstance(found, Unreachable)
        assert (foreign.connections, server.connections) == (0, 0)


@pytest.mark.parametrize("odd", [None, 7, [], {}, {"id": "x"}, {"id": "", "status": "failed"}])
async def test_one_unreadable_item_costs_the_page_its_completeness_only(
    server: RawServer, provider: Replicate, odd: object
) -> None:
    server.script = reply(200, page(ONE, odd, TWO))

    found = await listed(provider)

    assert [p.job_id for p in found.predictions] == ["one", "two"]
    assert not found.complete


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        (reply(200, HTML), "HTTP 200: the answer has another form"),
        (reply(200, [ONE]), "HTTP 200: the answer has another form"),
        (reply(200, {"results": None}), "HTTP 200: the answer has another form"),
        (reply(200, {"results": {"one": ONE}}), "HTTP 200: the answer has another form"),
        (reply(200, b"[" * 100_000), "HTTP 200: the answer has another form"),
        (reply(401, problem(401)), "HTTP 401: Not now."),
        (reply(404, problem(404)), "HTTP 404: Not now."),
        (reply(429, problem(429), {"Retry-After": "86400"}), "HTTP 429: Not now."),
        (reply(502, HTML), "HTTP 502"),
        (reply(302, b"", {"Location": "https://elsewhere.example/"}), "HTTP 302"),
    ],
)
async def test_a_list_is_asked_for_once_and_its_trouble_is_named(
    server: RawServer, provider: Replicate, script: Script, detail: str
) -> None:
    server.script = script

    assert await provider.list_since(SINCE) == Unreachable(detail)
    assert len(server.heard) == 1


@pytest.mark.parametrize("ahead_s", [-HOUR_S, 0, 5 * 60, HOUR_S])
async def test_the_provider_s_clock_is_compared_with_ours(
    server: RawServer, provider: Replicate, ahead_s: int
) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead_s), usegmt=True)
    server.script = reply(200, page(), {"Date": date})

    found = await listed(provider)

    assert ahead_s - 30 < found.clock_ahead_s < ahead_s + 1


@pytest.mark.parametrize("date", [None, "", "soon", "Wed, 01 Jul 2026 12:00:44 -0000"])
async def test_a_clock_that_is_not_told_is_taken_for_ours(
    server: RawServer, provider: Replicate, date: str | None
) -> None:
    server.script = reply(200, page(), None if date is None else {"Date": date})

    assert (await listed(provider)).clock_ahead_s == 0


async def test_all_pages_together_have_every_prediction_once(
    simulator: Simulator, simulated: Replicate
) -> None:
    before = datetime.now(UTC) - timedelta(seconds=60)
    for seed in range(101):
        created = await simulated.create(
            CreateRequest(MODEL, {"prompt": "a red fox", "seed": seed}, None, 600, float("inf"))
        )
        assert isinstance(created, Created)

    pages: list[Listed] = []
    cursor = None
    while not pages or cursor is not None:
        found = await simulated.list_since(before, cursor)
        assert isinstance(found, Listed)
        pages.append(found)
        cursor = found.next_cursor
    later = await simulated.list_since(datetime.now(UTC) + timedelta(hours=1))

    assert [len(one.predictions) for one in pages] == [100, 1]
    assert all(one.complete and abs(one.clock_ahead_s) < 10 for one in pages)
    assert [p.seed for one in pages for p in one.predictions] == list(reversed(range(101)))
    assert isinstance(later, Listed)
    assert later.predictions == ()
    assert len(await simulator.predictions()) == 101


async def test_a_model_s_schemas_are_fetched(simulated: Replicate) -> None:
    found = await simulated.model_schemas(MODEL)
    missing = await simulated.model_schemas("wan-video/wan-9")

    assert isinstance(found, Schemas)
    assert "frame_num" in found.schemas["Input"]["properties"]
    assert missing == Missing()


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (reply(200, model(None)), Missing()),
        (reply(404, problem(404)), Missing()),
        (reply(404, HTML), Unreachable("HTTP 404")),
        (reply(200, {}), Unreachable("HTTP 200: the answer has another form")),
        (reply(200, HTML), Unreachable("HTTP 200: the answer has another form")),
        (reply(200, model("1.0")), Unreachable("HTTP 200: the answer has another form")),
        (
            reply(200, model({"openapi_schema": {"components": {"schemas": []}}})),
            Unreachable("HTTP 200: the answer has another form"),
        ),
        (
            reply(200, model({"openapi_schema": {"components": {"schemas": {"Input": 7}}}})),
            Schemas({"Input": 7}),
        ),
        (reply(503, problem(503)), Unreachable("HTTP 503: Not now.")),
    ],
)
async def test_what_a_model_publishes_is_handed_on_as_it_is(
    server: RawServer, provider: Replicate, script: Script, expected: object
) -> None:
    server.script = script

    assert await provider.model_schemas(MODEL) == expected
    [heard] = server.heard
    assert (heard.method, heard.path) == ("GET", f"/v1/models/{MODEL}")


async def test_a_file_is_uploaded_whole(simulated: Replicate) -> None:
    content = bytes(range(256)) * 4096

    found = await simulated.upload_file("fox.png", content, "image/png")

    assert isinstance(found, Uploaded)
    assert found.url.startswith("http")
    left = found.expires_at - datetime.now(UTC)
    assert timedelta(hours=23) < left <= timedelta(hours=24)


async def test_an_upload_is_a_form_with_the_file(server: RawServer, provider: Replicate) -> None:
    server.script = reply(201, uploaded(expires_at="2026-07-02T14:00:00+02:00"))

    found = await provider.upload_file("fox.png", b"\x89PNG", "image/png")

    assert found == Uploaded(
        "https://api.replicate.com/v1/files/file", datetime(2026, 7, 2, 12, tzinfo=UTC)
    )
    [heard] = server.heard
    assert (heard.method, heard.path) == ("POST", "/v1/files")
    assert heard.headers["content-type"].startswith("multipart/form-data")
    assert b'name="content"; filename="fox.png"\r\nContent-Type: image/png' in heard.body
    assert b"\r\n\r\n\x89PNG\r\n" in heard.body


@pytest.mark.parametrize("expires_at", [None, "soon", 7, "2026-07-02", "9999-12-31T23:59:59-14:00"])
async def test_a_file_lives_a_day_unless_its_answer_says(
    server: RawServer, provider: Replicate, expires_at: object
) -> None:
    server.script = reply(201, uploaded(expires_at=expires_at))

    found = await provider.upload_file("fox.png", b"\x89PNG", "image/png")

    assert isinstance(found, Uploaded)
    assert abs(found.expires_at - datetime.now(UTC) - timedelta(hours=24)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "script",
    [
        reply(201, uploaded(urls=None)),
        reply(201, uploaded(urls={"get": 7})),
        reply(201, uploaded(urls={"get": "javascript:alert(1)"})),
        reply(201, uploaded(urls={"get": "https://"})),
        reply(201, HTML),
        reply(202, uploaded()),
        reply(413, problem(413)),
        reply(503, HTML),
        reply(201, uploaded(), cut_bytes=3),
    ],
)
async def test_an_upload_without_an_address_is_none_and_is_not_repeated(
    server: RawServer, provider: Replicate, script: Script
) -> None:
    server.script = script

    found = await provider.upload_file("fox.png", b"\x89PNG", "image/png")

    assert isinstance(found, Unreachable)
    assert found.detail
    assert len(server.heard) == 1
