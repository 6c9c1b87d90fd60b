import asyncio
import base64
import gzip
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from dataclasses import replace

import aiohttp
import pytest
import structlog

from services.runtime.metrics import Metrics
from services.webhook.ingress import WEBHOOK_PATH, Limits
from services.webhook.secret_source import SecretSource
from services.webhook.signature import Secret
from tests.integration.webhook.harness import (
    KEY,
    SECRET,
    Door,
    counted,
    eventually,
    good_query,
    headers_of,
    locked,
    opened_door,
    received,
)

# What the ingress answers does not depend on the database; test_inbox runs on both.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"])

BODY = b'{"id": "p1", "status": "succeeded"}'
QUICK = Limits(
    body_bytes_max=10_000, body_limit_s=0.4, idle_s=0.4, linger_s=0.2, other_bytes_max=20_000
)


def raw(
    body: bytes = BODY,
    *,
    query: str = "",
    headers: list[tuple[str, str]] | None = None,
    more: tuple[str, ...] = (),
    length: int | None = None,
) -> bytes:
    """Returns a request as bytes, so that no client mends it."""
    if headers is None:
        headers = list(headers_of(body, f"msg_{time.monotonic_ns()}").items())
    lines = [
        f"POST {WEBHOOK_PATH}{'?' if query else ''}{query} HTTP/1.1",
        "Host: door",
        *(f"{name}: {value}" for name, value in headers),
        *more,
    ]
    if not any(line.lower().startswith("transfer-encoding") for line in more):
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body


def chunked(body: bytes, size: int = 1000) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


async def test_a_genuine_event_is_stored_before_it_is_acknowledged(url: str) -> None:
    async with opened_door(url) as door:
        query = good_query(attempt=2)
        status, _, answer = await door.knock(raw(query=query))

        (row,) = await door.rows()
        assert (status, answer) == (200, b"stored\n")
        assert (row["body"], row["query"], row["query_verdict"]) == (BODY, query, "good")
        assert (f"g={row['generation_id']}", row["attempt"]) == (query.split("&")[0], 2)
        assert json.loads(row["headers"])[0][0] == "webhook-id"


async def test_other_paths_and_methods_are_refused_without_a_redirect(url: str) -> None:
    async with opened_door(url) as door, aiohttp.ClientSession() as client:
        base = door.url.removesuffix(WEBHOOK_PATH)

        async def ask(method: str, path: str) -> aiohttp.ClientResponse:
            return await client.request(method, base + path, data=BODY, allow_redirects=False)

        for path in ("/", WEBHOOK_PATH + "/", "/" + WEBHOOK_PATH, "/api", "/healthz/"):
            assert (await ask("POST", path)).status == 404, path
        for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"):
            answer = await ask(method, WEBHOOK_PATH)
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        for method in ("POST", "PUT"):
            answer = await ask(method, "/healthz")
            assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")
        for method in ("GET", "HEAD"):
            assert (await ask(method, "/healthz")).status == 200
        assert await door.rows() == []


async def test_encoded_bodies_are_refused_and_identity_is_not(url: str) -> None:
    async with opened_door(url) as door:
        for encoding in ("gzip", "deflate", "br", "identity, gzip", "x"):
            packed = gzip.compress(BODY)
            signed = list(headers_of(BODY, "msg_1").items())
            request = raw(packed, headers=signed, more=(f"Content-Encoding: {encoding}",))
            assert (await door.knock(request))[0] == 415, encoding
        twice = ("Content-Encoding: identity", "Content-Encoding: gzip")
        assert (await door.knock(raw(more=twice)))[0] == 415
        assert await door.rows() == []

        assert (await door.knock(raw(more=("Content-Encoding: Identity",))))[0] == 200


@pytest.mark.parametrize("transfer", ["declared", "chunked"])
async def test_a_body_of_the_limit_is_taken_and_one_byte_more_is_not(
    url: str, transfer: str
) -> None:
    async with opened_door(url) as door:
        for size, expected in ((8 * 1024 * 1024, 200), (8 * 1024 * 1024 + 1, 413)):
            body = b'"' + b"x" * (size - 2) + b'"'
            headers = list(headers_of(body, f"msg_{size}").items())
            if transfer == "declared":
                request = raw(body, headers=headers)
            else:
                more = ("Transfer-Encoding: chunked",)
                request = raw(chunked(body, 100_000), headers=headers, more=more)
            assert (await door.knock(request))[0] == expected

        assert [len(row["body"]) for row in await door.rows()] == [8 * 1024 * 1024]


async def test_a_length_above_the_limit_is_refused_before_the_body_comes(url: str) -> None:
    async with opened_door(url, QUICK) as door:
        status, _, _ = await door.knock(raw(b"", length=10_001))

        assert status == 413


async def test_a_lane_that_is_full_refuses_strangers_with_429_and_the_known_with_503(
    url: str,
) -> None:
    limits = replace(QUICK, known_requests_max=2, other_requests_max=1, body_limit_s=5)
    async with opened_door(url, limits) as door:
        slow = [
            await asyncio.open_connection("127.0.0.1", door.port)
            for _ in range(limits.known_requests_max + limits.other_requests_max)
        ]
        for number, (_, writer) in enumerate(slow):
            writer.write(raw(b"", length=9, query=good_query() if number < 2 else ""))

        for query, expected in (("", 429), ("g=1&a=1&k=x", 429), (good_query(), 503)):
            status, head, _ = await eventually(
                lambda query=query, expected=expected: _knocked(door, query, expected)
            )
            assert (status, "Retry-After: 1" in head) == (expected, True)

        for _, writer in slow:
            writer.close()
        for query in ("", good_query()):
            await eventually(lambda query=query: _knocked(door, query, 200))


async def _knocked(door: Door, query: str, expected: int) -> tuple[int, str, bytes] | None:
    answer = await door.knock(raw(query=query))
    return answer if answer[0] == expected else None


@pytest.mark.parametrize("transfer", ["declared", "chunked"])
async def test_the_bytes_of_a_lane_are_bounded_too(url: str, transfer: str) -> None:
    limits = replace(QUICK, other_bytes_max=5_000)
    async with opened_door(url, limits) as door:
        body = b"[" + b" " * 5_000 + b"]"
        headers = list(headers_of(body, "msg_1").items())
        more = ("Transfer-Encoding: chunked",) if transfer == "chunked" else ()
        sent = chunked(body) if more else body

        assert (await door.knock(raw(sent, headers=headers, more=more)))[0] == 429
        known = raw(sent, headers=headers, more=more, query=good_query())
        assert (await door.knock(known))[0] == 200
        assert (await door.knock(raw()))[0] == 200


async def test_a_body_that_comes_too_slowly_is_refused_and_the_connection_closed(
    url: str,
) -> None:
    async with opened_door(url, QUICK) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(raw(b"x", length=9))

        async with asyncio.timeout(30):
            answer = await reader.read()

        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"Connection: close" in answer
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"POST /api/webhooks/repl", raw(b"", length=1)[:60]])
async def test_silent_connections_and_slow_headers_are_ended(url: str, sent: bytes) -> None:
    async with opened_door(url, QUICK) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        began = time.monotonic()
        writer.write(sent)

        async with asyncio.timeout(30):
            assert await reader.read() == b""

        assert time.monotonic() - began >= 0.3
        writer.close()


async def test_connections_above_the_limit_are_ended_and_room_comes_back(url: str) -> None:
    metrics = Metrics()
    limits = replace(QUICK, connections_max=2, idle_s=30)
    async with opened_door(url, limits, metrics=metrics) as door:
        held = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(2)]
        for _, writer in held:
            writer.write(b"POST ")

        async def is_refused() -> bool:
            reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
            writer.write(b"POST ")
            try:
                async with asyncio.timeout(1):
                    return await reader.read() == b""
            except (TimeoutError, ConnectionError) as error:
                return isinstance(error, ConnectionError)
            finally:
                writer.close()

        assert await eventually(is_refused)
        assert counted(metrics, "webhook_connections_refused_total") >= 1
        for _, writer in held:
            writer.close()

        async def is_taken() -> bool:
            try:
                return (await door.knock(raw()))[0] == 200
            except (asyncio.IncompleteReadError, ConnectionError):
                return False

        assert await eventually(is_taken)


async def test_bad_signatures_get_one_and_the_same_401_and_nothing_is_stored(url: str) -> None:
    good = headers_of(BODY, "msg_1")
    lines = list(good.items())
    wrong = {**good, "webhook-signature": "v1," + "A" * 43 + "="}
    cases = {
        "no headers": raw(headers=[]),
        "no id": raw(headers=lines[1:]),
        "no timestamp": raw(headers=[lines[0], lines[2]]),
        "no signature": raw(headers=lines[:2]),
        "wrong signature": raw(headers=list(wrong.items())),
        "altered body": raw(BODY + b" ", headers=lines),
        "altered id": raw(headers=[("webhook-id", "msg_2"), *lines[1:]]),
        "old": raw(headers=list(headers_of(BODY, "msg_1", age_s=302).items())),
        "early": raw(headers=list(headers_of(BODY, "msg_1", age_s=-303).items())),
        "other secret": raw(headers=list(headers_of(BODY, "msg_1", key=b"k" * 24).items())),
        "id twice": raw(headers=[lines[0], *lines]),
        "signature twice": raw(headers=[*lines, (lines[2][0].upper(), lines[2][1])]),
        "timestamp twice": raw(headers=[*lines, lines[1]]),
        "empty body": raw(b"", headers=lines),
        "not UTF-8 header": raw(headers=[("webhook-id", "msg_\udcff"), *lines[1:]]),
        "other version": raw(
            headers=[*lines[:2], (lines[2][0], lines[2][1].replace("v1,", "v2,"))]
        ),
    }
    async with opened_door(url) as door:
        answers = {name: await door.knock(request) for name, request in cases.items()}

        assert {name: status for name, (status, _, _) in answers.items()} == dict.fromkeys(
            cases, 401
        )
        assert {body for _, _, body in answers.values()} == {b"the signature was not accepted\n"}
        assert await door.rows() == []


async def test_what_is_signed_right_is_taken_however_odd_it_is(url: str) -> None:
    good = headers_of(BODY, "msg_1")
    token = good["webhook-signature"]
    latin = '{"prompt": "caf\u00e9"}'.encode("latin-1")
    signed_latin = headers_of(b"", "msg_latin")
    signed_latin["webhook-signature"] = _sign_bytes(signed_latin, latin)
    cases = {
        "two signatures": raw(
            headers=[*list(good.items())[:2], ("webhook-signature", f"v1,{'A' * 43}= {token}")]
        ),
        "garbage token first": raw(
            headers=[
                ("webhook-signature", f"garbage v1,! {token}"),
                *list(headers_of(BODY, "msg_1").items())[:2],
            ]
        ),
        "not JSON": raw(b"not json"),
        "no content": raw(b""),
        "not UTF-8": raw(latin, headers=list(signed_latin.items())),
        "odd content type": raw(more=("Content-Type: ;;\udcff",)),
        "long query": raw(query="x" * 5_000),
        "odd query": raw(query="g=%00&%FF&g=[]{}|^`"),
    }
    async with opened_door(url) as door:
        for name, request in cases.items():
            assert (await door.knock(request))[0] == 200, name

        stored = await door.rows()
        # The first two are one event.
        assert len(stored) == len(cases) - 1
        assert latin in [row["body"] for row in stored]
        assert {row["query_verdict"] for row in stored} == {"missing", "bad"}


def _sign_bytes(headers: dict[str, str], body: bytes) -> str:
    content = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(KEY, content, hashlib.sha256)).decode()


async def test_a_replay_with_another_address_is_kept_apart_and_never_believed(url: str) -> None:
    async with opened_door(url) as door:
        headers = list(headers_of(BODY, "msg_1").items())
        genuine = good_query()
        stranger = good_query()[:38] + genuine[38:]
        for query in (stranger, good_query(environment="staging"), "", genuine, genuine):
            assert (await door.knock(raw(headers=headers, query=query)))[0] == 200

        stored = await door.rows()
        assert [(row["query_verdict"], row["attempt"]) for row in stored] == [
            ("bad", 0),
            ("good", 1),
        ]


async def test_the_same_event_fifty_times_at_once_is_acknowledged_each_time(url: str) -> None:
    async with opened_door(url) as door:
        request = raw(query=good_query())

        answers = await asyncio.gather(*(door.knock(request) for _ in range(50)))

        assert [status for status, _, _ in answers] == [200] * 50
        assert len(await door.rows()) == 1


async def test_503_when_storing_takes_too_long_and_healthz_says_so(url: str) -> None:
    async with opened_door(url, store_limit_s=0.2) as door:
        with locked(url):
            status, head, _ = await door.knock(raw())
            health, _, _ = await door.knock(b"GET /healthz HTTP/1.1\r\nHost: door\r\n\r\n")

        assert (status, "Retry-After: 1" in head, health) == (503, True, 503)
        await eventually(lambda: _knocked(door, "", 200))


async def test_503_until_a_secret_is_known(url: str) -> None:
    async with opened_door(url, secrets=SecretSource(())) as door:
        status, head, _ = await door.knock(raw())

        assert (status, "Retry-After: 1" in head) == (503, True)
        # What is refused by its headers is so whether it could be verified or not.
        assert (await door.knock(raw(more=("Content-Encoding: gzip",))))[0] == 415
        large = f"POST {WEBHOOK_PATH} HTTP/1.1\r\nHost: door\r\nContent-Length: {8 * 2**20 + 1}"
        assert (await door.knock(f"{large}\r\n\r\n".encode()))[0] == 413


async def test_any_active_secret_is_accepted_and_its_number_kept(url: str) -> None:
    secrets = SecretSource((Secret(0, b"n" * 24), Secret(1, KEY)))
    async with opened_door(url, secrets=secrets) as door:
        assert (await door.knock(raw()))[0] == 200

        assert [row["secret_number"] for row in await door.rows()] == [1]


async def test_leaving_says_so_and_still_takes_events_until_it_stops(url: str) -> None:
    async with opened_door(url) as door:
        door.ingress.leave()

        health, _, _ = await door.knock(b"GET /healthz HTTP/1.1\r\nHost: door\r\n\r\n")
        assert health == 503
        assert (await door.knock(raw()))[0] == 200

        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        request = raw(b"{}", more=("Expect: 100-continue",))
        writer.write(request[:-1])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        stopping = asyncio.create_task(door.ingress.stop())
        await asyncio.sleep(0)
        writer.write(request[-1:])
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        await stopping
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", door.port)


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"POST / HTTP/9.9\r\n\r\n",
        b"POST " + b"x" * 9_000 + b" HTTP/1.1\r\n\r\n",
        b"POST " + WEBHOOK_PATH.encode() + b" HTTP/1.1\r\nA: " + b"x" * 9_000 + b"\r\n\r\n",
        b"POST " + WEBHOOK_PATH.encode() + b" HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST " + WEBHOOK_PATH.encode() + b" HTTP/1.1\r\nContent-Length: 1\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        raw(b"zz\r\nnot a chunk\r\n", more=("Transfer-Encoding: chunked",)),
        raw(b"5\r\nabc", more=("Transfer-Encoding: chunked",)),
        raw(more=("Expect: the-unexpected",)),
        b"GET /healthz HTTP/1.0\r\n\r\n",
    ],
)
async def test_broken_requests_get_no_5xx_and_leave_the_door_open(
    url: str, sent: bytes, caught: list[structlog.typing.EventDict]
) -> None:
    async with opened_door(url, QUICK) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(sent)

        async with asyncio.timeout(30):
            answer = await reader.read()

        writer.close()
        assert not answer or 200 <= int(answer.split()[1]) < 500, answer
        assert (await door.knock(raw()))[0] == 200
        assert len(await door.rows()) == 1
    assert [line["event"] for line in caught if line["log_level"] != "debug"] == ["stored"]


@pytest.mark.parametrize(
    "sent",
    [
        b"garbage\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET /healthz HTTP/0.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00" * 100,
    ],
)
async def test_what_is_no_http_of_our_time_is_answered_400_closed_and_counted(
    url: str, sent: bytes
) -> None:
    metrics = Metrics()
    async with opened_door(url, QUICK, metrics=metrics) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(sent)

        async with asyncio.timeout(30):
            answer = await reader.read()

        writer.close()
        assert answer.split(b" ", 2)[:2] in ([b"HTTP/1.0", b"400"], [b"HTTP/1.1", b"400"])
        assert counted(metrics, "webhook_broken_requests_total") == 1


async def test_no_answer_says_what_serves(url: str) -> None:
    async with opened_door(url, QUICK) as door:
        heads = [
            (await door.knock(request))[1]
            for request in (
                raw(),
                raw(headers=[]),
                raw().replace(b"HTTP/1.1", b"HTTP/1.0", 1),
                b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
                b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
                b"garbage\r\n\r\n",
            )
        ]

    assert [int(head.split()[1]) for head in heads] == [200, 401, 200, 404, 200, 400]
    for head in heads:
        names = [line.split(":")[0].lower() for line in head.splitlines()[1:] if line]
        assert "server" not in names
        assert names.count("date") == names.count("content-length") == 1
        assert "aiohttp" not in head.lower()


async def test_a_caller_that_vanishes_changes_nothing(url: str) -> None:
    async with opened_door(url, QUICK) as door:
        _, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(raw())
        writer.close()

        assert await eventually(door.rows)


@pytest.fixture
def caught() -> Iterator[list[structlog.typing.EventDict]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


async def test_the_log_has_one_line_an_event_and_no_word_of_its_content(
    url: str, caught: list[structlog.typing.EventDict]
) -> None:
    async with opened_door(url) as door:
        body = b'{"prompt": "a private wish"}'
        headers = headers_of(body, "msg_1")
        query = good_query()
        for _ in range(2):
            await door.knock(raw(body, headers=list(headers.items()), query=query))
        await door.knock(raw(b"{}", headers=list(headers.items()), query=query))

    above_debug = [line for line in caught if line["log_level"] != "debug"]
    assert [(line["event"], line["webhook_ids"]) for line in above_debug] == [("stored", ["msg_1"])]
    everything = repr(caught)
    for secret in ("private wish", headers["webhook-signature"][3:], SECRET[6:], query[-22:]):
        assert secret not in everything


async def test_bytes_that_wait_to_be_stored_are_bounded(url: str) -> None:
    async with opened_door(url, store_limit_s=0.1) as door:
        large = [received(body=b"x" * (8 * 1024 * 1024 - number)) for number in range(8)]
        large.append(received(body=b"x" * 100))

        with locked(url):
            answers = await asyncio.gather(
                *(door.inbox.store(event) for event in large), return_exceptions=True
            )

        assert [getattr(answer, "reason", "") for answer in answers] == [
            *["DATABASE_UNAVAILABLE"] * 8,
            "SERVICE_OVERLOADED",
        ]
        await eventually(lambda: _knocked(door, "", 200))
