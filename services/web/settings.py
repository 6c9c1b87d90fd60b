"""Settings of the web service."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from services.runtime.program import ProcessSettings
from services.runtime.settings import (
    DAY_S,
    OR_FILE,
    HostAndPort,
    PeerAddress,
    Settings,
    http_address,
    is_loopback,
)

__all__ = ["DevelopmentSettings", "SignIn", "WebSettings"]

RATE_MAX = 1_000_000
CONNECTIONS_MAX = 100_000
BODY_BYTES_MAX = 1024 * 1024 * 1024
MEBIBYTE = 1024 * 1024

SignIn = Literal["development", "jwks", "secret"]


def _are_origins(origins: str) -> str:
    for origin in filter(None, map(str.strip, origins.split(","))):
        parts = urlsplit(http_address(origin))
        # A policy is a line of words: one of these would end the word, or the directive.
        if parts.path or any(mark in origin for mark in ";,'\""):
            raise ValueError("must be origins, as https://host or https://host:port, without paths")
    return origins


def _are_networks(networks: str) -> str:
    for network in filter(None, map(str.strip, networks.split(","))):
        try:
            ipaddress.ip_network(network)
        except ValueError:
            raise ValueError("must be IP addresses or networks, comma separated") from None
    return networks


def _is_rate_limit_url(url: str) -> str:
    if urlsplit(url).scheme not in ("memory", "async+redis", "async+rediss"):
        raise ValueError("must be memory://, or begin with async+redis:// or async+rediss://")
    return url


HttpAddress = Annotated[str, AfterValidator(http_address)]
Rate = Annotated[int, Field(ge=1, le=RATE_MAX)]


class DevelopmentSettings(Settings):
    """What is needed to vouch for anybody."""

    development_key_file: Path = Path("var/keys/development_key")
    """The private key of development, made if missing."""


class WebSettings(DevelopmentSettings, ProcessSettings):
    """What a web service is told when it starts."""

    address: HostAndPort = "127.0.0.1:8080"
    """Where it answers HTTP: `host:port`. TLS ends at the proxy in front of it."""
    credits_address: PeerAddress
    """Where credits answers: `host:port` or any other gRPC target; without certificates, on this
    machine."""
    generation_address: PeerAddress
    """Where generation answers, likewise."""
    callback_keys_file: Path
    """File with the keys that addresses of media are signed with: one in base64 a line."""
    session_keys_file: Path
    """File with the keys that sign sessions: one in base64 a line, newest first."""
    storage_url: str | None = None
    """Where files are kept, as generation is told. A local folder is served under `/media`."""
    media_url: HttpAddress | None = None
    """Under which address people fetch files, as generation is told; the page may show them."""
    media_origins: Annotated[str, AfterValidator(_are_origins)] = ""
    """Other origins that the page may show media from, such as a bucket's, comma separated."""
    public_url: HttpAddress | None = None
    """Where people reach the page: requests for other hosts are refused. One with https makes
    cookies secure. None: this machine's own names, on a loopback address only."""
    sign_in: SignIn | None = None
    """Who vouches for people: `jwks` and `secret` are Supabase, by its published keys or by a
    shared one; `development` believes any name, and so goes with no public https address but this
    machine's. None: development, if the address is a loopback one, the public one too if there is
    one, and no proxy is named."""
    supabase_url: HttpAddress | None = None
    """Where Supabase answers, without `/auth`."""
    supabase_jwt_secret: Annotated[SecretStr | None, OR_FILE] = None
    """The key that Supabase signs with; for `secret`."""
    supabase_anon_key: Annotated[SecretStr | None, OR_FILE] = None
    """The key that Supabase lets apps in with. None: people cannot sign in by password."""
    jwt_issuer: str | None = None
    """Who has to have issued tokens. None: what is at the Supabase address."""
    rate_limit_url: Annotated[str, OR_FILE, AfterValidator(_is_rate_limit_url)] = "memory://"
    """Where rates are counted: `memory://`, each replica by itself, or `async+redis://host`."""
    creates_per_minute: Rate = 10
    """Generations that a user may start."""
    uploads_per_minute: Rate = 20
    """Images that a user may upload."""
    calls_per_minute: Rate = 300
    """Other calls that a user may make."""
    sign_ins_per_minute: Rate = 10
    """Tries to sign in from an address."""
    streams_per_user: Rate = 8
    """Event streams that a user may have open at this replica."""
    watched_users_max: Annotated[int, Field(ge=1, le=CONNECTIONS_MAX)] = 900
    """Users with open streams at this replica; the streams of more are refused, and their pages ask
    now and then. Of the `streams_max` of the services each takes one, and another while it comes.
    """
    forwarded_allow_ips: Annotated[str, AfterValidator(_are_networks)] = ""
    """Proxies whose `X-Forwarded-For` is believed: addresses or networks, comma separated."""
    connections_max: Annotated[int, Field(ge=1, le=CONNECTIONS_MAX)] = 4096
    """Connections at once; those above are closed."""
    connections_per_address: Annotated[int, Field(ge=1, le=CONNECTIONS_MAX)] = 256
    """Connections at once from one address that is no trusted proxy and not this machine."""
    body_bytes_max: Annotated[int, Field(ge=1, le=BODY_BYTES_MAX)] = 64 * 1024
    """Size of a request's body, but for uploads."""
    upload_bytes_max: Annotated[int, Field(ge=1, le=BODY_BYTES_MAX)] = 10 * MEBIBYTE + 64 * 1024
    """Size of an upload, with the form around the image."""
    body_limit_s: Annotated[float, Field(gt=0, le=DAY_S)] = 60.0
    """How long a body may take to arrive."""
    drain_s: Annotated[float, Field(ge=0, le=DAY_S)] = 0.0
    """How long calls are still answered after it says that it leaves, for balancers to look away.
    """

    @property
    def is_secure(self) -> bool:
        """Whether people come by https."""
        return self.public_url is not None and self.public_url.startswith("https://")

    @property
    def is_public(self) -> bool:
        """Whether people reach the page by another name than this machine's own."""
        public_name = urlsplit(self.public_url or "//localhost").hostname
        return not is_loopback(f"[{public_name}]:0")

    @property
    def is_of_one_machine(self) -> bool:
        """Whether nobody comes from elsewhere, as far as is known."""
        return is_loopback(self.address) and not self.is_public and not self.trusted_proxies

    @property
    def media_origin_list(self) -> tuple[str, ...]:
        """The origins, besides its own, that the page may show media from."""
        named = filter(None, map(str.strip, self.media_origins.split(",")))
        if self.media_url is None:
            return tuple(named)
        parts = urlsplit(self.media_url)
        return tuple(dict.fromkeys((f"{parts.scheme}://{parts.netloc}", *named)))

    @property
    def trusted_proxies(self) -> tuple[str, ...]:
        """The networks of proxies."""
        return tuple(filter(None, map(str.strip, self.forwarded_allow_ips.split(","))))
