"""Takes webhooks over HTTP: checks, stores, and only then acknowledges them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import web

from services.runtime.callback import Callback, Verdict, read_query
from services.runtime.errors import ServiceError
from services.runtime.telemetry import get_logger
from services.webhook.inbox import Inbox, ReceivedEvent
from services.webhook.secret_source import SecretSource
from services.webhook.signature import BadSignature, Reason, Verified, verify

__all__ = ["HEALTH_PATH", "WEBHOOK_PATH", "Ingress", "Limits"]

WEBHOOK_PATH = "/api/webhooks/replicate"
HEALTH_PATH = "/healthz"
PROBE_AGE_S_MAX = 5.0
MEBIBYTE = 1024 * 1024

logger = get_logger(__name__)

# What aiohttp would log is what strangers sent: malformed requests, with their content.
# A logger outside of the tree, since levels in the tree are for all.
_SILENT = logging.Logger("aiohttp.silent", logging.CRITICAL + 1)  # noqa: LOG001


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
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._inbox = inbox
        self._secrets = secrets
        self._callback_keys = callback_keys
        self._environment = environment
        self._limits = limits = limits or Limits()
        self._clock = clock
        self._known = _Lane(limits.known_requests_max, limits.known_bytes_max)
        self._others = _Lane(limits.other_requests_max, limits.other_bytes_max)
        self._health = _Health(inbox)
        self._stopping = False
        self._requests = 0
        self._idle = asyncio.Event()
        self._listener: asyncio.Server | None = None
        application = web.Application(middlewares=[_answer_defects])
        application.router.add_post(WEBHOOK_PATH, self._receive)
        application.router.add_get(HEALTH_PATH, self._answer_health)
        self._runner = web.AppRunner(
            application,
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
        await self._runner.setup()
        server = self._runner.server
        assert server is not None

        def accept() -> asyncio.Protocol:
            if len(server.connections) >= self._limits.connections_max:
                return _Refuse()
            return server()

        self._listener = await asyncio.get_running_loop().create_server(accept, host, port)
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
        # First, since the cleanup throws away what is still to come of their bodies.
        while self._requests:
            self._idle.clear()
            await self._idle.wait()
        await self._runner.cleanup()

    async def _answer_health(self, request: web.Request) -> web.Response:
        del request
        return web.Response(status=200 if await self._health.is_good() else 503)

    async def _receive(self, request: web.Request) -> web.Response:
        """Answers one webhook; the order of the checks is part of the contract."""
        received_at = self._clock()
        if self._stopping or not self._secrets.secrets:
            return _come_back(503)
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
        known = callback.verdict is Verdict.GOOD
        lane = self._known if known else self._others
        visit = _Visit(lane)
        if not visit.enter(declared):
            return _come_back(503 if known else 429)
        self._requests += 1
        try:
            body = await self._read_body(request, visit, known=known)
            verified = self._verify(request, body)
            return await self._store(request, received_at, query, callback, body, verified)
        except _Refusal as refusal:
            logger.debug("refused", answer=refusal.status)
            return refusal.answer()
        finally:
            visit.leave()
            self._requests -= 1
            self._idle.set()

    async def _read_body(self, request: web.Request, visit: "_Visit", *, known: bool) -> bytes:
        chunks: list[bytes] = []
        size_bytes = 0
        try:
            async with asyncio.timeout(self._limits.body_limit_s):
                while chunk := await request.content.readany():
                    size_bytes += len(chunk)
                    if size_bytes > self._limits.body_bytes_max:
                        raise _too_large()
                    if not visit.grow_to(size_bytes):
                        raise _Refusal(503 if known else 429, "busy", retry=True)
                    chunks.append(chunk)
        except TimeoutError:
            raise _Refusal(408, "the body took too long", close=True) from None
        except (web.RequestPayloadError, ConnectionError):
            raise _Refusal(400, "the body is broken", close=True) from None
        return b"".join(chunks)

    def _verify(self, request: web.Request, body: bytes) -> Verified:
        try:
            return verify(body, request.headers.items(), self._secrets.secrets, self._clock())
        except BadSignature as error:
            logger.debug("bad signature", reason=error.reason)
            if error.reason is Reason.WRONG_SIGNATURE:
                self._secrets.doubt()
            raise _Refusal(401, "the signature was not accepted") from None

    async def _store(
        self,
        request: web.Request,
        received_at: datetime,
        query: str,
        callback: Callback,
        body: bytes,
        verified: Verified,
    ) -> web.Response:
        event = ReceivedEvent(
            webhook_id=verified.webhook_id,
            body=body,
            headers=list(request.headers.items()),
            query=query,
            query_verdict=callback.verdict.value,
            generation_id=callback.generation_id,
            attempt=callback.attempt,
            secret_number=verified.secret_number,
            signed_at=verified.signed_at,
            received_at=received_at,
        )
        log = logger.bind(webhook_id=event.webhook_id, query=event.query_verdict)
        try:
            is_new = await self._inbox.store(event)
        except ServiceError as error:
            log.warning("not stored", reason=error.reason, cause=error.message)
            return _come_back(503)
        if is_new:
            log.info("stored", generation_id=event.generation_id, size_bytes=len(body))
        else:
            log.debug("stored before")
        return web.Response(text="stored\n")


class _Lane:
    """Room for requests of one kind."""

    def __init__(self, requests_max: int, bytes_max: int) -> None:
        self.requests_free = requests_max
        self.bytes_free = bytes_max


class _Visit:
    """One request's part of a lane."""

    def __init__(self, lane: _Lane) -> None:
        self._lane = lane
        self._bytes = 0

    def enter(self, size_bytes: int) -> bool:
        """Takes a place for a body of `size_bytes`, if it is free; `leave` gives it back."""
        if self._lane.requests_free <= 0 or not self.grow_to(size_bytes):
            return False
        self._lane.requests_free -= 1
        return True

    def grow_to(self, size_bytes: int) -> bool:
        """Takes room for a body that turns out larger than was declared, if it is free."""
        more = max(0, size_bytes - self._bytes)
        if more > self._lane.bytes_free:
            return False
        self._lane.bytes_free -= more
        self._bytes += more
        return True

    def leave(self) -> None:
        """Gives back what `enter` and `grow_to` took."""
        self._lane.requests_free += 1
        self._lane.bytes_free += self._bytes


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


@web.middleware
async def _answer_defects(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Logs what nobody expected, which aiohttp's silenced logger would not."""
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception:  # Whatever it is, its sender learns no more than that.
        logger.exception("request failed", method=request.method)
        return web.Response(status=500)
