"""Opens channels to other services and makes calls on them: with a deadline, retried, and typed."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

import grpc

from services.runtime.call_telemetry import ClientCall, ClientTelemetry
from services.runtime.calls import remaining_s
from services.runtime.errors import DeadlineExceeded, from_rpc_error
from services.runtime.metrics import CallMetrics
from services.runtime.renewal import RenewedChannel
from services.runtime.settings import PLAINTEXT_RULE, is_loopback_target
from services.runtime.tls import Certificates, Material, channel_credentials

__all__ = ["MESSAGE_BYTES_MAX", "WATCHING", "PlaintextRefused", "connect", "invoke"]

DEFAULT_DEADLINE_S = 5.0
NESTED_MARGIN_S = 0.05
"""What a call inside a handler leaves of the handler's own time for its answer."""

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
"""Of a message on a channel that was not asked for more; gRPC's own default."""

WATCHING = "reelworks-watching"
"""Metadata by which a stream that has nothing to say yet tells its watcher that it is there."""

_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    # Traffic leaves a server within moments of its NOT_SERVING.
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            "name": [{}],
            # Every method can be repeated, since its ids are its keys. 5 attempts count at most;
            # a `timeout` here would lose a constant 1.7 s and not reach the server.
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # The budget: retries stop while more than half of what was tried lately fails.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
}

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


class PlaintextRefused(ValueError):
    """A call without certificates would leave this machine."""

    def __init__(self, address: str) -> None:
        super().__init__(f"{address} {PLAINTEXT_RULE}")


def connect(
    address: str,
    deadlines_s: Mapping[str, float] | None = None,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
    certificates: Certificates | None = None,
    measured: CallMetrics | None = None,
) -> grpc.aio.Channel:
    """Returns a channel to the service at `address`; to be made inside a running event loop.

    `deadlines_s` maps bare method names to seconds, for calls that name no timeout themselves; what
    is not in it has 5 s. A call made while another is answered never outlasts that one. With
    `certificates` both sides show theirs; without, raises PlaintextRefused unless `address` is this
    machine's.
    """
    options = [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # A service that was away is found again soon; by default pauses grow up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # Replicas that came or went are found within this.
        ("grpc.dns_min_time_between_resolutions_ms", 10_000),
        ("grpc.max_send_message_length", message_bytes_max),
        ("grpc.max_receive_message_length", message_bytes_max),
        # A proxy that the environment names would see all, and be elsewhere.
        ("grpc.enable_http_proxy", 0),
    ]
    deadlines, telemetry = _Deadlines(deadlines_s or {}), ClientTelemetry(measured)
    interceptors = [_UnaryCalls(deadlines, telemetry), _StreamCalls(deadlines, telemetry)]
    if certificates is None:
        if not is_loopback_target(address):
            raise PlaintextRefused(address)
        return grpc.aio.insecure_channel(address, options=options, interceptors=interceptors)

    def open_channel(material: Material) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(
            address, channel_credentials(material), options=options, interceptors=interceptors
        )

    return RenewedChannel(certificates, open_channel)


async def invoke(
    method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request
) -> _Response:
    """Calls `method` of a stub and returns its answer; raises ServiceError and nothing else."""
    for attempt in (1, 2):
        try:
            return await method(request)
        except grpc.aio.AioRpcError as error:
            # A stopping server cancels what waits in its queue, and no retry policy repeats that:
            # grpc/grpc#41785.
            if error.code() is grpc.StatusCode.CANCELLED and attempt == 1:
                continue
            raise from_rpc_error(error) from error
    raise AssertionError("the second attempt returned or raised")


class _Deadlines:
    """Decides how long a call may take."""

    def __init__(self, defaults_s: Mapping[str, float]) -> None:
        self._defaults_s = defaults_s

    def limit(self, details: grpc.aio.ClientCallDetails) -> float:
        """Returns the timeout of a call; raises DeadlineExceeded if there is no time for it."""
        method: Any = details.method
        name = (method.decode() if isinstance(method, bytes) else method).rpartition("/")[2]
        timeout_s = details.timeout
        if timeout_s is None:
            timeout_s = self._defaults_s.get(name, DEFAULT_DEADLINE_S)
        left_s = remaining_s()
        if left_s is not None:
            timeout_s = min(timeout_s, left_s - NESTED_MARGIN_S)
            if timeout_s <= 0:
                raise DeadlineExceeded("", "No time is left for a call to another service.")
        return timeout_s


def _started(details: Any, timeout_s: float, begun: ClientCall) -> grpc.aio.ClientCallDetails:
    return grpc.aio.ClientCallDetails(
        details.method,
        timeout_s,
        begun.metadata(details.metadata),
        details.credentials,
        details.wait_for_ready,
    )


class _UnaryCalls(grpc.aio.UnaryUnaryClientInterceptor):
    """Starts each unary call. It never awaits the answer, or cancellation would break."""

    def __init__(self, deadlines: _Deadlines, telemetry: ClientTelemetry) -> None:
        self._deadlines = deadlines
        self._telemetry = telemetry

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """Starts the call with a deadline, and in the trace of whoever makes it."""
        timeout_s = self._deadlines.limit(client_call_details)
        begun = self._telemetry.begin(client_call_details, streams=False)
        details = _started(client_call_details, timeout_s, begun)
        call = await continuation(details, request)
        begun.watch(call)
        return call


class _StreamCalls(grpc.aio.UnaryStreamClientInterceptor):
    """Starts each stream."""

    def __init__(self, deadlines: _Deadlines, telemetry: ClientTelemetry) -> None:
        self._deadlines = deadlines
        self._telemetry = telemetry

    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        """Starts the stream with a deadline, and in the trace of whoever makes it."""
        timeout_s = self._deadlines.limit(client_call_details)
        begun = self._telemetry.begin(client_call_details, streams=True)
        details = _started(client_call_details, timeout_s, begun)
        call = await continuation(details, request)
        begun.watch(call)
        return call
