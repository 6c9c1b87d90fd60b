"""Serves an app over HTTP: bounds what strangers may hold, and leaves without cutting anybody off.

| what a caller may hold | until |
|---|---|
| a connection, without a whole request | `headers_s`, and `headers_bytes_max` of it |
| a connection, with nothing asked | uvicorn's keep-alive |
| a connection whose answer nobody reads | `stall_s` |
| a connection on which a refused body still comes | `linger_s` |
| a connection, with the next request before the last answer | nothing: that ends it |
| connections | `connections_max`, from one address `connections_per_address` |
"""

import contextlib
import ipaddress
import json
import secrets
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from services.runtime.telemetry import get_logger
from services.web.problems import Problem, body_of, problem

__all__ = ["ConnectionLimits", "WebServer", "listen"]

KEEP_ALIVE_S = 20
SWEEP_TICKS = 5
"""uvicorn's loop turns ten times a second."""
BACKLOG = 2048
TRACE_BYTES = 16
NO_HTTP = problem(400, "MALFORMED_REQUEST", "The request is no HTTP.")

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What callers may take of a server."""

    connections_max: int = 4096
    """At once."""
    connections_per_address: int = 256
    """At once, from one that is not this machine and no trusted proxy."""
    trusted_proxies: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    """Those who bring the connections of many."""
    headers_bytes_max: int = 32 * 1024
    """Of a request's line and headers."""
    headers_s: float = 10.0
    """How long those may take."""
    stall_s: float = 60.0
    """How long an answer may wait for its reader."""
    linger_s: float = 2.0
    """How long the rest of a body is thrown away after its answer, so that its sender sees that."""


class WebServer(uvicorn.Server):
    """A server that says so before it leaves."""

    def __init__(
        self, app: Any, limits: ConnectionLimits, grace_s: float, forwarded_allow_ips: str = ""
    ) -> None:
        """`draining` is set first thing when it leaves: what streams has to end itself then."""
        config = _Config(
            app,
            http=_Connection,
            ws="none",
            lifespan="off",
            # What it would log are the mistakes of strangers, and what the app has logged itself.
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            proxy_headers=bool(forwarded_allow_ips),
            forwarded_allow_ips=forwarded_allow_ips,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, round(grace_s)),
            backlog=BACKLOG,
        )
        config.places = _Places(limits)
        super().__init__(config)
        self._draining = app.state.parts.draining

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to the process."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Ends connections whose time is over."""
        if counter % SWEEP_TICKS == 0:
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, _Connection):
                    connection.end_if_late(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Has streams end, then waits for the answers that are under way."""
        self._draining.set()
        for connection in list(self.server_state.connections):
            if isinstance(connection, _Connection):
                connection.end_if_stalled()
        await super().shutdown(sockets)


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that listens; raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG)


class _Config(uvicorn.Config):
    places: "_Places"


class _Places:
    """Who has how many connections."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._all = 0
        self._by_host: Counter[str] = Counter()

    def take(self, host: str) -> bool:
        """Takes a place for a caller, if there is one."""
        limits = self.limits
        if self._all >= limits.connections_max:
            return False
        if self._by_host[host] >= limits.connections_per_address and not self._is_trusted(host):
            return False
        self._all += 1
        self._by_host[host] += 1
        return True

    def give_back(self, host: str) -> None:
        self._all -= 1
        self._by_host[host] -= 1
        if not self._by_host[host]:
            del self._by_host[host]

    def _is_trusted(self, host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return not host  # A socket of this machine's has no address.
        return address.is_loopback or any(address in net for net in self.limits.trusted_proxies)


class _Connection(HttpToolsProtocol):
    """A connection whose every wait has an end."""

    config: _Config

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._places = self.config.places
        self._limits = self._places.limits
        self._host = self.client[0] if self.client else ""
        self._has_place = self._places.take(self._host)
        self._expects_headers = True
        self._header_bytes = 0
        self._late_at: float | None = time.monotonic() + self._limits.headers_s
        if not self._has_place:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._has_place:
            self._has_place = False
            self._places.give_back(self._host)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._expects_headers:
            if self._late_at is None:
                self._late_at = time.monotonic() + self._limits.headers_s
            self._header_bytes += len(data)
        super().data_received(data)
        # What is complete is measured below; nobody needs to send more to be refused.
        if self._expects_headers and self._header_bytes > self._limits.headers_bytes_max:
            self._refuse(_large_headers(self._limits))

    def on_message_begin(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # Programs that send the next request ahead are rare, and proxies none of them. What one
            # read holds of those would be thousands to be kept, and a caller who leaves would be
            # noticed by the last of them only.
            self.transport.abort()
            raise _RequestOver
        super().on_message_begin()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  It is uvicorn's.
        """Answers what is no HTTP; uvicorn calls this for whatever stopped the parser."""
        self._refuse(NO_HTTP)

    def _refuse(self, refusal: Problem) -> None:
        if not self.transport.is_closing():
            content = _content(refusal)
            self.transport.write(
                b"HTTP/1.1 %d %s\r\nconnection: close\r\ncontent-type: application/problem+json\r\n"
                b"content-length: %d\r\n\r\n%s"
                % (refusal.status, refusal.title.encode(), len(content), content)
            )
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._expects_headers = False
        self._header_bytes = 0
        self._late_at = None
        size_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size_bytes > self._limits.headers_bytes_max:
            self._refuse(_large_headers(self._limits))
            raise _RequestOver
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._expects_headers = True
        if self.cycle.response_complete:  # It lingered, and need not any longer.
            self._late_at = None

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._expects_headers or self.transport.is_closing():
            self._late_at = time.monotonic() + self._limits.linger_s

    def pause_writing(self) -> None:
        super().pause_writing()
        self._late_at = time.monotonic() + self._limits.stall_s

    def resume_writing(self) -> None:
        super().resume_writing()
        self._late_at = None

    def end_if_late(self, now: float) -> None:
        """Ends the connection if what it waits for did not come."""
        if self.transport.is_closing() and self._late_at is None:
            self._late_at = now + self._limits.linger_s
        if self._late_at is not None and now >= self._late_at:
            self.transport.abort()

    def end_if_stalled(self) -> None:
        """Ends the connection if its caller does not read the answer."""
        if self.flow.write_paused:
            self.transport.abort()


class _RequestOver(Exception):
    """Nothing more is read of a connection that was ended: raised, it stops the parser."""


def _large_headers(limits: ConnectionLimits) -> Problem:
    limit = limits.headers_bytes_max
    detail = f"The headers of the request have more than {limit} bytes."
    return problem(431, "HEADERS_TOO_LARGE", detail, metadata={"limit": limit})


def _content(refusal: Problem) -> bytes:
    trace_id = secrets.token_hex(TRACE_BYTES)
    logger.debug("refused", status=refusal.status, trace_id=trace_id)
    return json.dumps(body_of(refusal, trace_id)).encode()
