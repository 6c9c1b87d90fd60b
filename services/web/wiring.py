"""Makes the parts of a web service from its settings, and closes them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import httpx
from joserfc.jwk import OctKey

from services.client.credits import CreditsClient
from services.client.generations import GenerationClient
from services.runtime.callback import parse_keys
from services.runtime.metrics import Metrics
from services.runtime.settings import is_loopback
from services.runtime.storage import Storage, open_storage
from services.runtime.telemetry import get_logger
from services.runtime.tls import open_certificates
from services.web.accounts import Accounts
from services.web.development import ISSUER, development_key
from services.web.hub import Hub
from services.web.identity import Identity, Supabase
from services.web.keys import PublishedKeys
from services.web.metrics import WebMetrics
from services.web.parts import Parts
from services.web.rates import Limits, Rate
from services.web.sessions import Sessions
from services.web.settings import WebSettings
from services.web.tokens import TokenVerifier, one_key, published_key

__all__ = ["WrongSetting", "wired"]

SECRET_BYTES_MIN = 32
HTTP_CONNECTIONS_MAX = 32

_Result = TypeVar("_Result")

logger = get_logger(__name__)


class WrongSetting(Exception):
    """A setting that cannot be used; the text is a line for whoever sets it."""


@contextlib.asynccontextmanager
async def wired(settings: WebSettings, measured: Metrics | None = None) -> AsyncIterator[Parts]:
    """Gives the parts of a web service; raises WrongSetting."""
    metrics = WebMetrics(measured)
    session_keys = _keys("SESSION_KEYS_FILE", settings.session_keys_file)
    media_keys = _keys("CALLBACK_KEYS_FILE", settings.callback_keys_file)
    async with contextlib.AsyncExitStack() as stack:
        identity = await _identity(settings, stack)
        limits = _tried("RATE_LIMIT_URL", lambda: _limits(settings))
        stack.push_async_callback(limits.close)
        storage = _storage(settings)
        if storage is not None:
            stack.callback(storage.close)
        certificates = open_certificates(settings)
        if certificates is not None and measured is not None:
            measured.watch_certificate(certificates.current)
        credits_client = await stack.enter_async_context(
            CreditsClient(settings.credits_address, certificates, metrics.calls)
        )
        generations = await stack.enter_async_context(
            GenerationClient(settings.generation_address, certificates, metrics.calls)
        )
        accounts = Accounts(credits_client)
        stack.push_async_callback(accounts.close)
        draining = asyncio.Event()
        hub = Hub(credits_client, generations, draining, users_max=settings.watched_users_max)
        stack.push_async_callback(hub.close)
        yield Parts(
            settings=settings,
            credits=credits_client,
            generations=generations,
            identity=identity,
            sessions=Sessions(session_keys, is_secure=settings.is_secure),
            accounts=accounts,
            limits=limits,
            hub=hub,
            storage=storage,
            media_keys=media_keys,
            draining=draining,
            metrics=metrics,
        )


async def _identity(settings: WebSettings, stack: contextlib.AsyncExitStack) -> Identity:
    kind = settings.sign_in
    if kind is None and not settings.is_of_one_machine:
        rule = "must be set, except on a loopback address, with no public one and no proxies"
        raise _wrong("SIGN_IN", rule)
    if kind == "development" and settings.is_secure and settings.is_public:
        rule = "must not be development where people come by https: it believes any name"
        raise _wrong("SIGN_IN", rule)
    if settings.public_url is None and not is_loopback(settings.address):
        raise _wrong("PUBLIC_URL", "must be set, except on a loopback address")
    if kind in (None, "development"):
        logger.warning("anybody is believed to be who they say", address=settings.address)
        path = settings.development_key_file
        key = _tried("DEVELOPMENT_KEY_FILE", lambda: development_key(path))
        return Identity(TokenVerifier(one_key(key, "ES256"), ISSUER), believes_names=True)
    http = await stack.enter_async_context(
        httpx.AsyncClient(limits=httpx.Limits(max_connections=HTTP_CONNECTIONS_MAX))
    )
    url, issuer = settings.supabase_url, settings.jwt_issuer
    if url is None and (kind == "jwks" or issuer is None):
        raise _wrong("SUPABASE_URL", f"must be set, for REELWORKS_SIGN_IN={kind}")
    issuer = issuer or f"{url}/auth/v1"
    if kind == "jwks":
        keys = PublishedKeys(f"{url}/auth/v1/.well-known/jwks.json", http)
        stack.push_async_callback(keys.close)
        verifier = TokenVerifier(published_key(keys), issuer)
    else:
        verifier = TokenVerifier(one_key(_secret(settings), "HS256"), issuer)
    anon_key = settings.supabase_anon_key
    supabase = None
    if url is not None and anon_key is not None:
        supabase = Supabase(url, anon_key.get_secret_value(), http)
    return Identity(verifier, supabase=supabase)


def _secret(settings: WebSettings) -> OctKey:
    secret = settings.supabase_jwt_secret
    if secret is None:
        raise _wrong("SUPABASE_JWT_SECRET", "must be set, for REELWORKS_SIGN_IN=secret")
    content = secret.get_secret_value().encode()
    if len(content) < SECRET_BYTES_MIN:
        raise _wrong("SUPABASE_JWT_SECRET", f"must have at least {SECRET_BYTES_MIN} bytes")
    return OctKey.import_key(content)


def _limits(settings: WebSettings) -> Limits:
    per_minute = {
        Rate.CREATES: settings.creates_per_minute,
        Rate.UPLOADS: settings.uploads_per_minute,
        Rate.CALLS: settings.calls_per_minute,
        Rate.SIGN_INS: settings.sign_ins_per_minute,
    }
    return Limits(settings.rate_limit_url, per_minute, settings.streams_per_user)


def _storage(settings: WebSettings) -> Storage | None:
    """Returns the local folder of media; a bucket is shown by its own addresses."""
    url = settings.storage_url
    if url is None:
        return None
    if not url.startswith("file:"):
        if not settings.media_origin_list:
            raise _wrong("MEDIA_ORIGINS", "must be set, or the page may show nothing of the bucket")
        return None
    return _tried("STORAGE_URL", lambda: open_storage(url))


def _keys(name: str, path: Path) -> tuple[bytes, ...]:
    return _tried(name, lambda: parse_keys(path.read_text()), str(path))


def _tried(name: str, make: Callable[[], _Result], about: str = "") -> _Result:
    """Returns what `make` returns; what goes wrong is the fault of a setting."""
    prefix = f"{about}: " if about else ""
    try:
        return make()
    except OSError as error:
        raise _wrong(name, f"{prefix}{error.strerror}") from None
    except ValueError as error:
        raise _wrong(name, f"{prefix}{error}") from None


def _wrong(name: str, rule: str) -> WrongSetting:
    return WrongSetting(f"REELWORKS_{name}: {rule}")
