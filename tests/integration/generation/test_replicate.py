"""The leash on the provider's package, against servers that misbehave."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator

import pytest

from services.generation.replicate import (
    Created,
    CreateRequest,
    Deferred,
    Found,
    Missing,
    NotSent,
    Refused,
    Replicate,
    Unknown,
    Unreachable,
)
from services.generation.transport import Exchange, Phase, observe
from tests.integration.generation.raw_http import Heard, RawServer, Script, raw_server, reply

TOKEN = "r8_secret"
MODEL = "wavespeedai/wan-2.1-t2v-480p"
WEBHOOK = "https://hooks.example.com/api/webhooks/replicate?g=1&a=1&k=x"
JOB_ID = "gm3qorzdhgbfurvjtvhg6dckhu"
CREATED = {"id": JOB_ID, "status": "starting", "input": {"seed": 7}, "logs": "", "urls": {}}
CREATE_ANSWERED = reply(201, CREATED)
HTML = b"<html><h1>502 Bad Gateway</h1></html>"


def problem(status: int, detail: str = "Not now.", **fields: object) -> dict[str, object]:
    return {"title": "A problem", "detail": detail, "status": status, **fields}


def a_create(
    *, webhook: str | None = WEBHOOK, cancel_after_s: float = 600, margin_s: float = 10
) -> CreateRequest:
    return CreateRequest(
        provider_model=MODEL,
        input={"prompt": "a red fox", "seed": 7},
        webhook=webhook,
        cancel_after_s=cancel_after_s,
        send_before=time.monotonic() + margin_s,
    )


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with raw_server(CREATE_ANSWERED) as running:
        yield running


@pytest.fixture
async def provider(server: RawServer) -> AsyncIterator[Replicate]:
    opened = Replicate(TOKEN, server.origin, call_s=5)
    yield opened
    await opened.close()


async def test_a_create_sends_what_it_must_and_nothing_that_it_must_not(
    server: RawServer, provider: Replicate
) -> None:
    outcome = await provider.create(a_create())

    assert isinstance(outcome, Created)
    assert (outcome.prediction.job_id, outcome.prediction.seed) == (JOB_ID, 7)
    assert outcome.answer.http_status == 201
    assert json.loads(outcome.answer.body or b"") == CREATED
    [heard] = server.heard
    assert (heard.method, heard.path) == ("POST", f"/v1/models/{MODEL}/predictions")
    assert json.loads(heard.body) == {
        "input": {"prompt": "a red fox", "seed": 7},
        "webhook": WEBHOOK,
        "webhook_events_filter": ["start", "completed"],
    }
    assert heard.headers["authorization"] == f"Bearer {TOKEN}"
    assert heard.headers["cancel-after"] == "600s"
    assert heard.headers["accept-encoding"] == "identity"
    assert "prefer" not in heard.headers


async def test_without_a_public_address_no_webhook_is_asked_for(
    server: RawServer, provider: Replicate
) -> None:
    await provider.create(a_create(webhook=None))

    assert json.loads(server.heard[0].body).keys() == {"input"}


@pytest.mark.parametrize(
    ("asked_s", "sent"), [(-60, "5s"), (0.4, "5s"), (61.4, "61s"), (1800, "1800s"), (1e9, "1800s")]
)
async def test_the_provider_is_told_when_to_give_up_within_its_limits(
    server: RawServer, provider: Replicate, asked_s: float, sent: str
) -> None:
    await provider.create(a_create(cancel_after_s=asked_s))

    assert server.heard[0].headers["cancel-after"] == sent


async def test_each_create_has_a_fresh_connection_and_reads_share_one(
    server: RawServer, provider: Replicate
) -> None:
    for _ in range(3):
        await provider.create(a_create())
    creates = server.connections
    for _ in range(3):
        await provider.get(JOB_ID)

    assert (creates, server.connections, len(server.heard)) == (3, 4, 6)


async def test_concurrent_creates_do_not_mix_up_their_answers(
    server: RawServer, provider: Replicate
) -> None:
    async def echo(heard: Heard, writer: asyncio.StreamWriter) -> None:
        wait = heard.headers["cancel-after"]
        await asyncio.sleep(0.02 if wait in ("10s", "12s") else 0)
        await reply(201, CREATED | {"id": f"job{wait}"})(heard, writer)

    server.script = echo

    creates = [provider.create(a_create(cancel_after_s=n)) for n in range(10, 20)]
    late = provider.create(a_create(margin_s=-1))
    *outcomes, last = await asyncio.gather(*creates, late)

    assert [isinstance(o, Created) and o.prediction.job_id for o in outcomes] == [
        f"job{n}s" for n in range(10, 20)
    ]
    assert isinstance(last, NotSent)
    assert len(server.heard) == 10


@pytest.mark.parametrize(
    "answer",
    [
        {"id": JOB_ID, "status": "aborted"},
        {"id": JOB_ID, "status": "resurrected", "error": {"code": 7}},
        CREATED | {"urls": {"get": None}, "model": None, "version": None},
        {"id": JOB_ID, "status": "starting", "metrics": "none", "logs": 7, "output": [[]]},
    ],
    ids=["aborted", "new word", "null address", "odd types"],
)
@pytest.mark.parametrize("status", [200, 201, 202])
async def test_the_id_is_kept_whatever_the_package_thinks_of_the_answer(
    server: RawServer, provider: Replicate, status: int, answer: dict[str, object]
) -> None:
    server.script = reply(status, answer)

    outcome = await provider.create(a_create())

    assert isinstance(outcome, Created)
    assert outcome.prediction.job_id == JOB_ID
    assert outcome.prediction.status == answer["status"]


async def test_a_create_that_comes_too_late_sends_not_a_byte(
    server: RawServer, provider: Replicate
) -> None:
    outcome = await provider.create(a_create(margin_s=-0.001))
    await provider.close()

    assert isinstance(outcome, NotSent)
    assert "late" in outcome.answer.detail
    assert (server.heard, server.size_bytes) == ([], 0)


async def test_where_nobody_listens_nothing_was_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        provider = Replicate(TOKEN, f"http://127.0.0.1:{taken.getsockname()[1]}", call_s=5)
        outcome = await provider.create(a_create())
        found = await provider.get(JOB_ID)
        await provider.cancel(JOB_ID)
        await provider.close()

    assert isinstance(outcome, NotSent)
    assert isinstance(found, Unreachable)


async def test_a_failed_tls_handshake_sent_nothing() -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Because\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    provider = Replicate(TOKEN, f"https://127.0.0.1:{port}", call_s=5)

    outcome = await provider.create(a_create())

    listener.close()
    await provider.close()
    assert isinstance(outcome, NotSent)


async def hang_up(_heard: Heard, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(_heard: Heard, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@pytest.mark.parametrize(
    "script",
    [
        hang_up,
        reset,
        reply(201, CREATED, cut_bytes=5),
        reply(201, b""),
        reply(201, b"null"),
        reply(201, {"status": "starting"}),
        reply(201, {"id": 7, "status": "starting"}),
        reply(200, HTML),
        reply(204),
        reply(302, b"", {"Location": "https://elsewhere.example.com/"}),
        reply(307, problem(307), {"Location": "/v1/predictions"}),
        reply(408, problem(408)),
        reply(409, problem(409)),
        reply(500, problem(500)),
        reply(502, HTML),
        reply(503, problem(503)),
        reply(504, HTML),
        reply(404, HTML),
        reply(422, {"error": "of a proxy"}),
        reply(422, ["detail"]),
        reply(429, HTML, {"Retry-After": "60"}),
        reply(403, b"[" * 100_000),
    ],
)
async def test_all_doubt_after_the_first_byte_is_unknown_and_never_repeated(
    server: RawServer, provider: Replicate, script: Script
) -> None:
    server.script = script

    outcome = await provider.create(a_create())

    assert isinstance(outcome, Unknown)
    assert len(server.heard) == 1


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413, 415, 422])
async def test_a_refusal_is_final_and_names_what_is_wrong(
    server: RawServer, provider: Replicate, status: int
) -> None:
    detail = "- input: Additional property\x00 frames is not allowed\n- seed: \ud800"
    named = [
        {"type": "extra", "field": "input", "description": "Additional property\x00 frames \ud800"},
        {"field": 7},
        "nothing",
    ]
    server.script = reply(status, problem(status, detail, invalid_fields=named))

    outcome = await provider.create(a_create())

    assert isinstance(outcome, Refused)
    assert "Additional property" in outcome.message
    # What is kept can be stored and shown.
    assert outcome.message.isprintable()
    assert outcome.answer.detail.isprintable()
    assert outcome.answer.http_status == status
    assert outcome.is_invalid_input is (status == 422)
    assert len(server.heard) == 1


async def test_a_long_refusal_is_cut(server: RawServer, provider: Replicate) -> None:
    server.script = reply(422, problem(422, "x" * 100_000))

    outcome = await provider.create(a_create())

    assert isinstance(outcome, Refused)
    assert len(outcome.message) <= 500
    assert len(outcome.answer.detail) <= 500


DATE = "Wed, 01 Jul 2026 12:00:00 GMT"


@pytest.mark.parametrize(
    ("fields", "detail", "headers", "pause_s"),
    [
        ({}, "Not now.", {}, 10),
        ({"retry_after": 7}, "Not now.", {}, 7),
        ({"retry_after": 2.5}, "Not now.", {}, 2.5),
        ({"retry_after": "8"}, "Not now.", {}, 8),
        ({"retry_after": 86_400}, "Not now.", {}, 120),
        ({"retry_after": -5}, "Not now.", {}, 1),
        ({"retry_after": 10**400}, "Not now.", {}, 10),
        ({"retry_after": True}, "Not now.", {}, 10),
        ({"retry_after": ["soon"]}, "Not now.", {}, 10),
        ({}, "Not now.", {"Retry-After": "33"}, 33),
        ({}, "Not now.", {"Retry-After": "1e99"}, 120),
        ({}, "Not now.", {"Retry-After": "nan"}, 10),
        ({}, "Not now.", {"Retry-After": "Wed, 01 Jul 2026 12:00:44 GMT", "Date": DATE}, 44),
        ({}, "Not now.", {"Retry-After": "Wed, 01 Jul 2026 12:00:44 -0000", "Date": DATE}, 10),
        ({}, "Not now.", {"Retry-After": "Thu, 02 Jul 2026 12:00:00 GMT", "Date": DATE}, 120),
        ({}, "Not now.", {"Retry-After": "Wed, 01 Jul 2026 12:00:44 GMT"}, 10),
        ({}, "Not now.", {"Retry-After": "soon"}, 10),
        ({}, "Your rate limit resets in ~30s.", {}, 30),
        ({"retry_after": 3}, "Resets in ~30s.", {"Retry-After": "20"}, 30),
    ],
)
async def test_too_many_requests_pauses_as_long_as_the_longest_of_all_that_says_so(
    server: RawServer,
    provider: Replicate,
    fields: dict[str, object],
    detail: str,
    headers: dict[str, str],
    pause_s: float,
) -> None:
    server.script = reply(429, problem(429, detail, **fields), headers)

    outcome = await provider.create(a_create())

    assert isinstance(outcome, Deferred)
    assert outcome.pause_s == pause_s
    assert len(server.heard) == 1


@pytest.mark.parametrize("status", [401, 402])
async def test_what_an_operator_must_see_to_pauses_until_it_is_seen_to(
    server: RawServer, provider: Replicate, status: int
) -> None:
    server.script = reply(status, problem(status))

    outcome = await provider.create(a_create())

    assert isinstance(outcome, Deferred)
    assert outcome.is_operators
    assert outcome.pause_s is None


async def drip(_heard: Heard, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 201 Because\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def mute(_heard: Heard, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize("script", [drip, mute])
async def test_a_server_that_never_finishes_is_left_at_the_limit(
    server: RawServer, script: Script
) -> None:
    server.script = script
    provider = Replicate(TOKEN, server.origin, call_s=0.3)
    begun = time.monotonic()

    outcome = await provider.create(a_create())
    found = await provider.get(JOB_ID)

    await provider.close()
    assert isinstance(outcome, Unknown)
    assert isinstance(found, Unreachable)
    assert 0.6 <= time.monotonic() - begun < 10
    assert len(server.heard) == 2


async def test_an_answer_without_bounds_is_not_read(server: RawServer, provider: Replicate) -> None:
    server.script = reply(200, b" " * (16 * 1024 * 1024 + 1))

    outcome = await provider.create(a_create())
    found = await provider.get(JOB_ID)

    assert isinstance(outcome, Unknown)
    assert "bytes" in outcome.answer.detail
    assert isinstance(found, Unreachable)


async def test_being_canceled_is_not_swallowed(server: RawServer, provider: Replicate) -> None:
    arrived = asyncio.Event()

    async def wait(heard: Heard, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await mute(heard, writer)

    server.script = wait
    create = asyncio.create_task(provider.create(a_create()))
    await arrived.wait()

    create.cancel()

    with pytest.raises(asyncio.CancelledError):
        await create


@pytest.mark.parametrize("foreign", ["http://localhost:{port}", "https://127.0.0.1:{port}"])
async def test_another_origin_is_refused_before_connecting(
    server: RawServer, provider: Replicate, foreign: str
) -> None:
    exchange = Exchange()
    url = foreign.format(port=server.port) + "/v1/predictions?cursor=x"

    await observe(exchange, lambda: provider._client._async_client.get(url), limit_s=5)

    assert "is not the provider's API" in exchange.problem
    assert server.connections == 0


async def test_an_open_request_is_refused_before_connecting(
    server: RawServer, provider: Replicate
) -> None:
    exchange = Exchange(send_before=time.monotonic() + 9, cancel_after_s=60)

    await observe(
        exchange,
        lambda: provider._client.models.predictions.async_create(MODEL, input={}, wait=True),
        limit_s=5,
    )

    assert exchange.phase is Phase.WAITING
    assert server.connections == 0


async def test_a_prediction_is_looked_up(server: RawServer, provider: Replicate) -> None:
    server.script = reply(200, CREATED | {"status": "aborted", "error": ["odd"]})

    found = await provider.get(JOB_ID)

    assert isinstance(found, Found)
    assert (found.prediction.job_id, found.prediction.status) == (JOB_ID, "aborted")
    [heard] = server.heard
    assert (heard.method, heard.path) == ("GET", f"/v1/predictions/{JOB_ID}")
    assert heard.headers["authorization"] == f"Bearer {TOKEN}"
    assert "cancel-after" not in heard.headers


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (reply(404, problem(404)), Missing()),
        (reply(404, HTML), Unreachable("HTTP 404")),
        (reply(401, problem(401)), Unreachable("HTTP 401")),
        (reply(429, problem(429), {"Retry-After": "86400"}), Unreachable("HTTP 429")),
        (reply(500, HTML), Unreachable("HTTP 500")),
        (reply(503, problem(503), {"Retry-After": "86400"}), Unreachable("HTTP 503")),
        (reply(504, HTML), Unreachable("HTTP 504")),
        (reply(302, b"", {"Location": "https://elsewhere.example.com/"}), Unreachable("HTTP 302")),
        (reply(200, HTML), Unreachable("not JSON")),
        (reply(200, []), Unreachable("not a JSON object")),
    ],
)
async def test_a_read_is_asked_once_and_its_trouble_is_named(
    server: RawServer, provider: Replicate, script: Script, expected: Missing | Unreachable
) -> None:
    server.script = script

    found = await provider.get(JOB_ID)

    assert found == expected
    assert len(server.heard) == 1


async def test_a_read_on_a_broken_connection_is_an_outage(
    server: RawServer, provider: Replicate
) -> None:
    server.script = hang_up

    found = await provider.get(JOB_ID)

    assert isinstance(found, Unreachable)


@pytest.mark.parametrize(
    "script",
    [reply(200, CREATED), reply(404, problem(404)), reply(503, HTML), reply(200, HTML), hang_up],
)
async def test_a_cancel_is_sent_once_whatever_is_answered(
    server: RawServer, provider: Replicate, script: Script
) -> None:
    server.script = script

    await provider.cancel(JOB_ID)

    [heard] = server.heard
    assert (heard.method, heard.path) == ("POST", f"/v1/predictions/{JOB_ID}/cancel")
    assert "cancel-after" not in heard.headers
