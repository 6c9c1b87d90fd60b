"""Takes webhooks over HTTP: checks, stores, and only then acknowledges them."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import HttpVersion11, web

from services.runtime.callback import Verdict, read_query
from services.runtime.errors import ServiceError
from services.runtime.telemetry import get_logger
from services.runtime.tracing import begin_request, is_tracing
from services.webhook.connections import Acknowledgement, ConnectionServer
from services.webhook.inbox import Inbox, ReceivedEvent
from services.webhook.metrics import WebhookMetrics
from services.webhook.secret_source import SecretSource
from services.webhook.signature import BadSignature, Reason, Verified, verify
from services.webhook.traces import Traces

__all__ = ["HEALTH_PATH", "WEBHOOK_PATH", "Ingress", "Limits"]

WEBHOOK_PATH = "/api/webhooks/replicate"
FAILURE = 500
"""From this status on, it is we who failed."""
HEALTH_PATH = "/healthz"
HEADERS_KEPT = (
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "content-type",
    "user-agent",
)
STORED = "stored\n"
PROBE_AGE_S_MAX = 5.0
SHUTDOWN_S = 5.0
MEBIBYTE = 1024 * 1024

logger = get_logger(__name__)

# What aiohttp would log is what strangers sent: malformed requests, with their content.
# A logger outside of the tree, since levels in the tree are for all.
_SILENT = logging.Logger("aiohttp.silent", logging.CRITICAL + 1)  # noqa: LOG001


_STORED = Acknowledgement(STORED)


@dataclass(frozen=True, slots=True)
class Limits:
    """What senders may take of the service."""

    body_bytes_max: int = 8 * MEBIBYTE
    body_limit_s: float = 10.0
    """How long a body may take to arrive."""
    idle_s: float = 15.0
    """How long a connection may be silent, or take for its headers."""
    linger_s: float = 2.0
    """How long the rest of a refused body is read, so that its sender sees the answer."""
    connections_max: int = 1_024
    known_requests_max: int = 256
    """At once, with an address that is proven to be ours."""
    known_bytes_max: int = 64 * MEBIBYTE
    """Of bodies being read or stored for those."""
    other_requests_max: int = 16
    """At once, with any other address."""
    other_bytes_max: int = 16 * MEBIBYTE


class Ingress:
    """The HTTP server of the webhook service."""

    def __init__(
        self,
        inbox: Inbox,
        secrets: SecretSource,
        callback_keys: Sequence[bytes],
        environment: str,
        *,
        limits: Limits | None = None,
        metrics: WebhookMetrics | None = None,
        traces: Traces | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._inbox = inbox
        self._secrets = secrets
        self._callback_keys = callback_keys
        self._environment = environment
        self._limits = limits = limits or Limits()
        self._metrics = metrics or WebhookMetrics()
        self._traces = traces or Traces()
        self._clock = clock
        self._known = _Lane(limits.known_requests_max, limits.known_bytes_max, status=503)
        self._others = _Lane(limits.other_requests_max, limits.other_bytes_max, status=429)
        self._health = _Health(inbox)
        self._stopping = False
        self._requests = 0
        self._idle = asyncio.Event()
        self._journal = _Journal(self._metrics, clock)
        self._listener: asyncio.Server | None = None
        # The plain server of aiohttp: two paths need no router, whose work each request would pay.
        self._server = ConnectionServer(
            self._answer,
            found_broken=self._metrics.found_broken,
            access_log=None,
            logger=_SILENT,
            keepalive_timeout=limits.idle_s,
            lingering_time=limits.linger_s,
            # What was signed are the bytes as they were sent; other encodings are refused.
            auto_decompress=False,
            # Once stored, a vanished caller changes nothing.
            handler_cancellation=False,
        )

    async def start(self, host: str, port: int) -> int:
        """Listens, and returns the port; raises OSError if the address cannot be listened on."""
        loop = asyncio.get_running_loop()

        def accept() -> asyncio.Protocol:
            if len(self._server.connections) >= self._limits.connections_max:
                self._metrics.refused_connection()
                return _Refuse()
            return self._server()

        self._listener = await loop.create_server(accept, host, port)
        listening_port: int = self._listener.sockets[0].getsockname()[1]
        return listening_port

    def leave(self) -> None:
        """Says so at `/healthz`; webhooks are still taken."""
        self._health.leaving = True

    async def stop(self) -> None:
        """Refuses new requests and waits for those under way."""
        self._stopping = self._health.leaving = True
        if self._listener is not None:
            self._listener.close()
        # First, since the shutdown throws away what is still to come of their bodies.
        while self._requests:
            self._idle.clear()
            await self._idle.wait()
        self._server.pre_shutdown()
        await self._server.shutdown(SHUTDOWN_S)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        try:
            path, method = request.rel_url.raw_path, request.method
            if path == WEBHOOK_PATH:
                return await self._receive(request) if method == "POST" else _not_allowed("POST")
            if path == HEALTH_PATH:
                if method not in ("GET", "HEAD"):
                    return _not_allowed("GET,HEAD")
                return web.Response(status=200 if await self._health.is_good() else 503)
            return web.Response(status=404, text="not found\n")
        except Exception:  # Whatever it is, its sender learns no more than that.
            # aiohttp would log it with what was sent, so its logger is silenced.
            logger.exception("request failed")
            return web.Response(status=500)

    async def _receive(self, request: web.BaseRequest) -> web.Response:
        """Answers one webhook and counts the answer, unless the journal does."""
        response = await (self._take_traced if is_tracing() else self._take)(request)
        if response is not _STORED:
            self._metrics.answered(response.status)
        elif not Acknowledgement.suits(request):
            return web.Response(text=STORED)
        return response

    async def _take_traced(self, request: web.BaseRequest) -> web.Response:
        span = begin_request(f"POST {WEBHOOK_PATH}")
        status = FAILURE
        try:
            response = await self._take(request)
            status = response.status
            return response
        finally:
            span.tell(http__request__method="POST", http__response__status_code=status)
            if status >= FAILURE:
                span.fail(str(status))
            span.end()

    async def _take(self, request: web.BaseRequest) -> web.Response:
        """Answers one webhook; the order of the checks is part of the contract."""
        received_at = self._clock()
        encodings = request.headers.getall("Content-Encoding", ())
        if any(encoding.strip().lower() not in ("", "identity") for encoding in encodings):
            return web.Response(status=415, text="encoded bodies are not accepted\n")
        declared = request.content_length or 0
        if declared > self._limits.body_bytes_max:
            return _too_large().answer()
        # The raw query, since decoding would accept more than was signed.
        query = request.raw_path.partition("?")[2]
        # Before the body is read, so that strangers cannot take the room of known senders.
        callback = read_query(query, self._callback_keys, self._environment)
        visit = _Visit(self._known if callback.verdict is Verdict.GOOD else self._others)
        if not visit.enter(declared):
            return visit.lane.full().answer()
        self._requests += 1
        try:
            if self._stopping or not self._secrets.secrets:
                return _come_back(503)
            body = await self._read_body(request, visit)
            headers = [
                (name, line) for name in HEADERS_KEPT for line in request.headers.getall(name, ())
            ]
            verified = self._verify(headers, body)
            return await self._store(
                ReceivedEvent(
                    webhook_id=verified.webhook_id,
                    body=body,
                    headers=headers,
                    query=query,
                    query_verdict=callback.verdict.value,
                    generation_id=callback.generation_id,
                    attempt=callback.attempt,
                    secret_number=verified.secret_number,
                    signed_at=verified.signed_at,
                    received_at=received_at,
                )
            )
        except _Refusal as refusal:
            logger.debug("refused", answer=refusal.status)
            return refusal.answer()
        finally:
            visit.leave()
            self._requests -= 1
            self._idle.set()

    async def _read_body(self, request: web.BaseRequest, visit: "_Visit") -> bytes:
        await self._agree_to_go_on(request)
        content = request.content
        try:
            if content.is_eof():  # A small body comes with its headers, and needs no timer.
                body = content.read_nowait()
                self._admit(len(body), visit)
                return body
            chunks: list[bytes] = []
            size_bytes = 0
            async with asyncio.timeout(self._limits.body_limit_s):
                while chunk := await content.readany():
                    size_bytes += len(chunk)
                    self._admit(size_bytes, visit)
                    chunks.append(chunk)
            return b"".join(chunks)
        except TimeoutError:
            raise _Refusal(408, "the body took too long", close=True) from None
        except (web.RequestPayloadError, ConnectionError):
            raise _Refusal(400, "the body is broken", close=True) from None

    def _admit(self, size_bytes: int, visit: "_Visit") -> None:
        """Refuses a body that turns out too large, for itself or for its lane."""
        if size_bytes > self._limits.body_bytes_max:
            raise _too_large()
        if not visit.grow_to(size_bytes):
            raise visit.lane.full()

    async def _agree_to_go_on(self, request: web.BaseRequest) -> None:
        """Tells a sender who asks before it sends the body that it may."""
        expected = request.headers.get("Expect")
        if expected is None or request.version != HttpVersion11:
            return
        if expected.lower() != "100-continue":
            raise _Refusal(417, "that cannot be expected")
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _verify(self, headers: Sequence[tuple[str, str]], body: bytes) -> Verified:
        try:
            return verify(body, headers, self._secrets.secrets, self._clock())
        except BadSignature as error:
            logger.debug("bad signature", reason=error.reason)
            self._metrics.rejected(error.reason)
            if error.reason is Reason.WRONG_SIGNATURE:
                self._secrets.doubt()
            raise _Refusal(401, "the signature was not accepted") from None

    async def _store(self, event: ReceivedEvent) -> web.Response:
        loop = asyncio.get_running_loop()
        began = loop.time()
        if is_tracing():
            self._traces.keep(event.webhook_id)
        try:
            is_new = await self._inbox.store(event)
        except ServiceError as error:
            logger.warning(
                "not stored", webhook_id=event.webhook_id, reason=error.reason, cause=error.message
            )
            self._metrics.verified(event.received_at, event.query_verdict, event.secret_number)
            return _come_back(503)
        self._journal.note(_Stored(event, is_new, loop.time() - began))
        return _STORED


@dataclass(frozen=True, slots=True)
class _Stored:
    """An event that is durable."""

    event: ReceivedEvent
    is_new: bool
    after_s: float
    """How long storing it took."""


class _Journal:
    """Logs and counts what was stored, at once for all that shared a database transaction."""

    def __init__(self, metrics: WebhookMetrics, clock: Callable[[], datetime]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._noted: list[_Stored] = []

    def note(self, stored: _Stored) -> None:
        """Has an event named and counted soon."""
        if not self._noted:
            # Those who waited for the same SQL commit go on in the same turn of the loop.
            asyncio.get_running_loop().call_soon(self._write)
        self._noted.append(stored)

    def _write(self) -> None:
        noted, self._noted = self._noted, []
        new = [stored.event for stored in noted if stored.is_new]
        if new:
            logger.info(
                "stored",
                webhook_ids=[event.webhook_id for event in new],
                generation_ids=[event.generation_id for event in new],
                size_bytes=sum(len(event.body) for event in new),
            )
        if len(new) < len(noted):
            self._metrics.repeated(len(noted) - len(new))
        kinds = Counter((one.event.query_verdict, one.event.secret_number) for one in noted)
        for (verdict, secret_number), count in kinds.items():
            self._metrics.verified(noted[-1].event.received_at, verdict, secret_number, count)
        now = self._clock()
        for stored in noted:
            after_s = (now - stored.event.received_at).total_seconds()
            self._metrics.acknowledged(after_s, stored.after_s)
        self._metrics.answered(200, len(noted))


class _Lane:
    """Room for requests of one kind."""

    def __init__(self, requests_max: int, bytes_max: int, status: int) -> None:
        self.requests_free = requests_max
        self.bytes_free = bytes_max
        self._status = status

    def full(self) -> "_Refusal":
        """Returns what is said to who finds no room."""
        return _Refusal(self._status, "try again", retry=True)


class _Visit:
    """One request's part of a lane."""

    def __init__(self, lane: _Lane) -> None:
        self.lane = lane
        self._bytes = 0

    def enter(self, size_bytes: int) -> bool:
        """Takes a place for a body of `size_bytes`, if it is free; `leave` gives it back."""
        if self.lane.requests_free <= 0 or not self.grow_to(size_bytes):
            return False
        self.lane.requests_free -= 1
        return True

    def grow_to(self, size_bytes: int) -> bool:
        """Takes room for a body that turns out larger than was declared, if it is free."""
        more = max(0, size_bytes - self._bytes)
        if more > self.lane.bytes_free:
            return False
        self.lane.bytes_free -= more
        self._bytes += more
        return True

    def leave(self) -> None:
        """Gives back what `enter` and `grow_to` took."""
        self.lane.requests_free += 1
        self.lane.bytes_free += self._bytes


class _Health:
    """Tells whether webhooks can be stored; asks the database at most once in five seconds."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._asking = asyncio.Lock()
        self._asked_at = float("-inf")
        self._good = False
        self.leaving = False

    async def is_good(self) -> bool:
        """Returns the last answer of the database, asking again if it is old."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if loop.time() - self._asked_at > PROBE_AGE_S_MAX:
                try:
                    await self._inbox.probe()
                    self._good = True
                except ServiceError as error:
                    logger.warning("unhealthy", cause=error.message)
                    self._good = False
                self._asked_at = loop.time()
        return self._good and not self.leaving


class _Refuse(asyncio.Protocol):
    """Ends a connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Refusal(Exception):
    """A webhook is not taken."""

    def __init__(self, status: int, text: str, *, retry: bool = False, close: bool = False) -> None:
        super().__init__(status)
        self.status = status
        self.text = text
        self.retry = retry
        self.close = close

    def answer(self) -> web.Response:
        """Returns what its sender is told."""
        headers = {"Retry-After": "1"} if self.retry else None
        response = web.Response(status=self.status, text=f"{self.text}\n", headers=headers)
        if self.close:
            response.force_close()
        return response


def _too_large() -> _Refusal:
    return _Refusal(413, "the body is too large")


def _come_back(status: int) -> web.Response:
    """Returns the answer to a sender who should repeat soon."""
    return _Refusal(status, "try again", retry=True).answer()


def _not_allowed(methods: str) -> web.Response:
    return web.Response(status=405, text="not allowed\n", headers={"Allow": methods})
