"""Knocks at the address that Replicate sends webhooks to, and says what stands in their way."""

import base64
import hashlib
import hmac
import http.client
import json
import secrets
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from services.runtime.settings import http_address, is_loopback

__all__ = [
    "Finding",
    "Knock",
    "NotReached",
    "check_address",
    "examine",
    "fetch_secret",
    "find_obstacle",
    "knock",
    "newest_key",
    "sample_event",
]

TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 64 * 1024
SECRET_PREFIX = "whsec_"  # noqa: S105  The prefix that every secret has.
REFUSAL = b"the signature was not accepted\n"
"""What the webhook service, and nobody else, answers to an unsigned webhook."""
NOT_READY = b"try again\n"
HTTPS_PORT, HTTP_PORT = 443, 80


class NotReached(Exception):
    """No answer came from an address; the text says why."""


@dataclass(frozen=True, slots=True)
class Knock:
    """What an address answered."""

    status: int
    location: str
    """Where a redirect leads; else empty."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about an address."""

    url: str
    status: int | None
    """What it answered; None without an answer."""
    problem: str | None
    """What is wrong; None if nothing is."""
    webhook_id: str | None = None
    """Of the test event; None if none was sent."""


def check_address(url: str) -> str | None:
    """Returns what is wrong with an address before anybody knocks; None if nothing is."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https"):
        return "is no address: it must be https://host/path"
    if parts.query or parts.fragment:
        return "must have no query and no fragment: those are added for each generation"
    if parts.scheme == "http" and not is_loopback(f"{host}:0"):
        return "must begin with https: what people write would travel in the clear"
    return None


def knock(url: str, body: bytes, headers: Mapping[str, str], method: str = "POST") -> Knock:
    """Returns what `url`, which was checked, answers to a request; follows no redirect.

    Raises NotReached when no answer comes.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        port = parts.port or HTTPS_PORT
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_S, context=context)
    else:
        port = parts.port or HTTP_PORT
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request(method, parts.path or "/", body, dict(headers))
        response = connection.getresponse()
        answer = response.read(ANSWER_BYTES_MAX)
        location = "".join(filter(str.isprintable, response.getheader("Location", "")))
        return Knock(response.status, location, answer)
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        raise NotReached(_reason(error, host, port)) from None
    finally:
        connection.close()


def find_obstacle(answer: Knock) -> str | None:
    """Returns what stands in the way of webhooks, given the answer to an unsigned one.

    None if it is the refusal that only the webhook service gives.
    """
    match answer.status:
        case 401 if answer.body == REFUSAL:
            return None
        case 401:
            return "something else than the webhook service asks for credentials (401)"
        case 503 if answer.body == NOT_READY:
            return (
                "the webhook service is not ready (503): it is leaving, or knows no secret yet; "
                "its log says which"
            )
        case status if 300 <= status < 400:
            return (
                f"it redirects ({status}) to {answer.location or 'nowhere'}; Replicate follows no "
                "redirect, so every webhook would be lost"
            )
        case 404 | 405 as status:
            return (
                f"another host or path answers ({status}); the webhook service takes "
                "POST /api/webhooks/replicate only"
            )
        case 403:
            return "something in front of the webhook service refuses strangers (403)"
        case 429:
            return "the webhook service has its hands full of strangers (429); check again"
        case 502 | 503 | 504 as status:
            return f"the proxy in front does not reach the webhook service ({status})"
        case status if 200 <= status < 300:
            return f"what answers takes webhooks without a signature ({status}); it is not ours"
        case status:
            return f"it answers {status} instead of the webhook service's 401"


def examine(url: str, body: bytes, headers: Mapping[str, str]) -> Finding:
    """Posts a webhook to `url` and returns what came of it.

    Without `webhook-id` among its `headers` it is to be refused, with it to be stored.
    """
    problem = check_address(url)
    if problem is not None:
        return Finding(url, None, problem)
    try:
        answer = knock(url, body, headers)
    except NotReached as error:
        return Finding(url, None, str(error))
    webhook_id = headers.get("webhook-id")
    if webhook_id is None:
        return Finding(url, answer.status, find_obstacle(answer))
    problem = None
    if answer.status != 200:
        problem = find_obstacle(answer) or "the service knows another secret (401)"
    return Finding(url, answer.status, problem, webhook_id)


def sample_event(key: bytes) -> tuple[bytes, dict[str, str]]:
    """Returns body and headers of an event that is genuine, and about no job that exists."""
    name = f"test-{secrets.token_hex(12)}"
    body = json.dumps(
        {"id": name, "status": "succeeded", "input": {}, "output": None, "logs": "", "error": None}
    ).encode()
    webhook_id, timestamp = f"msg_{name}", str(int(time.time()))
    digest = hmac.digest(key, f"{webhook_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return body, {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def newest_key(text: str) -> bytes:
    """Returns the key of the first secret in `whsec_…`, one of many by commas or lines.

    Raises ValueError that says what is wrong, without the secret.
    """
    encoded = text.replace(",", " ").split()[:1]
    if not encoded or not encoded[0].startswith(SECRET_PREFIX):
        raise ValueError(f"the first secret does not start with {SECRET_PREFIX}")
    plain = encoded[0].removeprefix(SECRET_PREFIX).partition("@")[0]
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        raise ValueError(f"the first secret is not base64 after {SECRET_PREFIX}") from None


def fetch_secret(base_url: str, token: str) -> str:
    """Returns the signing secret of the account that `token` belongs to.

    Raises NotReached, or ValueError when the answer holds none, or when the token would not be safe
    on its way there; then it is not sent.
    """
    answer = knock(
        f"{_safe(base_url)}/v1/webhooks/default/secret",
        b"",
        {"Authorization": f"Bearer {token}"},
        "GET",
    )
    if answer.status != http.HTTPStatus.OK:
        raise ValueError(f"Replicate answers {answer.status} when asked for the secret")
    try:
        key = json.loads(answer.body)["key"]
    except (ValueError, KeyError, TypeError):
        raise ValueError("Replicate's answer has no secret") from None
    return str(key)


def _safe(base_url: str) -> str:
    """Returns an address that a token may be sent to; raises ValueError for any other."""
    name = "the address that is asked for the secret (REPLICATE_BASE_URL)"
    try:
        address = http_address(base_url)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None
    parts = urlsplit(address)
    if parts.scheme == "http" and not is_loopback(f"{parts.hostname}:0"):
        raise ValueError(f"{name} must begin with https: the token would travel in the clear")
    return address


def _reason(error: Exception, host: str, port: int) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"TLS: the certificate of {host} is not accepted: {error.verify_message}"
        case ssl.SSLError():
            return f"TLS: port {port} of {host} does not speak it ({error.reason or error})"
        case socket.gaierror():
            return f"DNS: there is no host {host} ({error.strerror})"
        case ConnectionRefusedError():
            return f"nothing listens at port {port} of {host}"
        case TimeoutError():
            return f"port {port} of {host} did not answer within {TIMEOUT_S:.0f} s"
        case ConnectionError():
            return f"port {port} of {host} ended the connection without an answer"
        case UnicodeError() | http.client.InvalidURL():
            return "it has characters or names that no address can have"
        case http.client.HTTPException():
            return f"what answers at port {port} of {host} does not speak HTTP"
        case _:
            return f"the connection to port {port} of {host} broke: {error}"
