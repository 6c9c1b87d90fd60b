"""Whatever strangers send: no 5xx, no row, no word of it in the log, and no harm to others."""

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.webhook.ingress import WEBHOOK_PATH, Limits
from tests.integration.webhook.harness import (
    Door,
    good_query,
    headers_of,
    opened_door,
)

# What the ingress answers does not depend on the database.
pytestmark = pytest.mark.parametrize("backend", ["sqlite"])

QUICK = Limits(
    body_bytes_max=10_000, body_limit_s=0.3, idle_s=0.3, linger_s=0.1, other_bytes_max=50_000
)
ANSWER_LIMIT_S = 60.0
"""Far above the limits of the ingress, for machines that are slow."""
CANARY = "c4n4ry"
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
CONNECTIONS = 24

_WORDS = st.sampled_from(
    ["", "0", "1", "-1", "5", "10001", "99999999999999999999", "+2", " 3", "0x5", "chunked",
     "gzip", "identity", "close", "keep-alive", "upgrade", "100-continue", "h2c", "v1,AAAA",
     "v1," + "A" * 43 + "=", "\xff", "\x00", "a\tb", "\u20ac", "x" * 9_000, CANARY,
     str(int(time.time())), "1e9", "application/json", "../..", "%00"]
)  # fmt: skip
_NAMES = st.sampled_from(
    ["Content-Length", "Transfer-Encoding", "Content-Encoding", "Connection", "Expect", "Upgrade",
     "Host", "webhook-id", "webhook-timestamp", "webhook-signature", "Content-Type", "Cookie",
     "", " ", "A b", "X" * 300, "\u00e9", CANARY]
)  # fmt: skip
_METHODS = st.sampled_from(["POST", "GET", "HEAD", "PUT", "OPTIONS", "post", "P\x00ST", "", "PRI"])
_TARGETS = st.sampled_from(
    [WEBHOOK_PATH, WEBHOOK_PATH + "/", "/healthz", "/", "*", "http://elsewhere/healthz",
     "http://xn--a-.xn--/", "//", "",
     WEBHOOK_PATH + "?g=1&a=1&k=" + CANARY, WEBHOOK_PATH + "?" + good_query(),
     WEBHOOK_PATH + "?" + "x" * 9_000, WEBHOOK_PATH + "#f", "/%2e%2e/healthz", "/\u00e9", "[::1"]
)  # fmt: skip
_VERSIONS = st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/9.9", "http/1.1", ""])
_BODIES = st.one_of(
    st.binary(max_size=200),
    st.just(CANARY.encode() * 100),
    st.just(b"x" * 20_000),
    st.sampled_from(
        [b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhel", b"zz\r\n", b"-1\r\n",
         b"ffffffffffffffffff\r\n", b"1;" + b"e" * 9_000 + b"\r\na\r\n0\r\n\r\n",
         b"0\r\nTrailer: " + CANARY.encode() + b"\r\n\r\n"]
    ),
)  # fmt: skip


_LINES = st.lists(st.tuples(_NAMES, _WORDS).map(": ".join), min_size=1, max_size=4)
_FAULTS = st.lists(
    st.sampled_from(["method", "target", "version", "lines", "framing", "end", "bytes", "signed"]),
    max_size=2,
    unique=True,
)
_FRAMINGS = st.sampled_from(
    ["Content-Length: 5", "Content-Length: 100000", "Content-Length: 10000",
     "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: x",
     "Expect: 100-continue", "Connection: close", "Content-Encoding: gzip"]
)  # fmt: skip


@st.composite
def _requests(draw: st.DrawFn) -> list[bytes]:
    """Returns the two parts in which a request with at most two faults is sent."""
    faults = draw(_FAULTS)
    body = draw(_BODIES)
    method = draw(_METHODS) if "method" in faults else "POST"
    target = draw(_TARGETS) if "target" in faults else WEBHOOK_PATH
    version = draw(_VERSIONS) if "version" in faults else "HTTP/1.1"
    lines = [f"{method} {target} {version}", "Host: door"]
    if "signed" in faults:
        lines += [f"{name}: {value}" for name, value in headers_of(b"", "m", key=b"?" * 24).items()]
    if "lines" in faults:
        lines += draw(_LINES)
    lines.append(draw(_FRAMINGS) if "framing" in faults else f"Content-Length: {len(body)}")
    end = draw(st.sampled_from([b"\n\n", b"\r\n", b""])) if "end" in faults else b"\r\n\r\n"
    request = "\r\n".join(lines).encode("utf-8", "surrogateescape") + end + body
    for _ in range(draw(st.integers(1, 3)) if "bytes" in faults else 0):
        place = draw(st.integers(0, len(request)))
        request = request[:place] + draw(st.binary(max_size=3)) + request[place + 1 :]
    cut = draw(st.integers(0, len(request)))
    return [request[:cut], request[cut:]]


@pytest.fixture
def lines() -> Iterator[list[structlog.typing.EventDict]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


@pytest.fixture
async def door(url: str) -> AsyncIterator[Door]:
    async with opened_door(url, QUICK) as opened:
        yield opened


async def send(door: Door, parts: list[bytes], *, ends: bool) -> list[int]:
    """Returns the statuses of all answers; fails unless the connection ends within its limits."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    try:
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0)
        if ends:
            writer.write_eof()
        async with asyncio.timeout(ANSWER_LIMIT_S):
            answer = await reader.read()
    except ConnectionError:
        return []  # It was ended while something was still being sent.
    finally:
        writer.close()
    return [int(status) for status in STATUS.findall(answer)]


@pytest.fixture
def seen() -> Iterator[Counter[int]]:
    """The statuses of all answers; without those of every depth it proves nothing."""
    statuses: Counter[int] = Counter()
    yield statuses
    assert set(statuses) >= {400, 401, 413}, statuses


@pytest.mark.timeout(300)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.tuples(_requests(), st.booleans()), min_size=8, max_size=CONNECTIONS))
async def test_no_request_of_strangers_gets_a_5xx_or_stays_unanswered(
    door: Door,
    lines: list[structlog.typing.EventDict],
    caplog: pytest.LogCaptureFixture,
    seen: Counter[int],
    requests: list[tuple[list[bytes], bool]],
) -> None:
    caplog.set_level(logging.DEBUG)

    answers = await asyncio.gather(*(send(door, parts, ends=ends) for parts, ends in requests))

    statuses = Counter(status for answer in answers for status in answer)
    seen.update(statuses)
    assert not [status for status in statuses if status >= 500], statuses
    # A GET of /healthz is the only request without a signature that is answered with 200.
    assert await door.rows() == []
    assert CANARY not in repr(lines)
    assert CANARY not in caplog.text
    assert [line for line in lines if line["log_level"] != "debug"] == []


async def test_a_host_that_is_no_name_is_answered_and_leaves_no_connection_behind(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened_door(url, QUICK) as door:
        for _ in range(50):
            status, _, _ = await door.knock(b"GET http://xn--a-.xn--/ HTTP/1.1\r\nHost: x\r\n\r\n")
            assert status == 404

    assert "xn--a-" not in caplog.text


async def test_what_is_no_http_gets_a_short_answer_and_the_rest_of_it_is_not_kept(
    url: str,
) -> None:
    async with opened_door(url, QUICK) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(b"x" * 20_000)
        answer = await asyncio.wait_for(reader.read(), ANSWER_LIMIT_S)
        writer.close()

    assert STATUS.findall(answer) == [b"400"]
    assert len(answer) < 500
    assert b"xxx" not in answer


@pytest.mark.timeout(300)
async def test_a_flood_of_strangers_neither_fills_the_table_nor_slows_the_known_down(
    url: str, lines: list[structlog.typing.EventDict]
) -> None:
    limits = Limits()
    body = CANARY.encode() * 10_000
    head = f"POST {WEBHOOK_PATH} HTTP/1.1\r\nHost: door\r\nContent-Length: {len(body)}\r\n\r\n"
    statuses: Counter[int] = Counter()
    async with opened_door(url, limits) as door:
        slow = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(20)]
        for _, writer in slow:  # They take all places of strangers.
            writer.write(head.encode() + b"x")
        flooding = True

        async def flood() -> None:
            while flooding:
                status, _, _ = await door.knock(head.encode() + body)
                statuses[status] += 1

        async def deliver(number: int) -> tuple[int, float]:
            event = b'{"id": "genuine"}'
            signed = headers_of(event, f"msg_{number}").items()
            headers = "".join(f"{name}: {value}\r\n" for name, value in signed)
            began = time.monotonic()
            status, _, _ = await door.knock(
                f"POST {WEBHOOK_PATH}?{good_query()} HTTP/1.1\r\nHost: door\r\n{headers}"
                f"Content-Length: {len(event)}\r\n\r\n".encode()
                + event
            )
            return status, time.monotonic() - began

        floods = [asyncio.create_task(flood()) for _ in range(16)]
        known = [await deliver(number) for number in range(100)]
        flooding = False
        await asyncio.gather(*floods)
        for _, writer in slow:
            writer.close()
        stored = await door.rows()

    assert {status for status, _ in known} == {200}
    # Without room of their own they would wait for the slow ones. The limit suits slow machines.
    assert sorted(seconds for _, seconds in known)[98] < limits.body_limit_s
    assert sum(statuses.values()) > 100
    assert set(statuses) <= {401, 429}
    assert {row["body"] for row in stored} == {b'{"id": "genuine"}'}
    assert len(stored) == 100
    assert CANARY not in repr(lines)
