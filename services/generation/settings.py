"""Settings of the generation service."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from services.generation.gate import GatePolicy
from services.generation.reconciliation import ReconcilePolicy
from services.generation.timing import FAST, Timing
from services.runtime.process import DatabaseSettings
from services.runtime.server import ServerSettings

__all__ = ["GenerationSettings"]


def _is_origin(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http or https address")
    return url.rstrip("/")


def _is_callback(url: str) -> str:
    parts = urlsplit(_is_origin(url))
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError("must be an https address, as the provider demands")
    if not parts.path or parts.query:
        raise ValueError("must have the path of the webhook service and no query")
    return url


def _is_base_url(url: str) -> str:
    if _is_origin(url).endswith("/v1"):
        raise ValueError("must not end in /v1, which the provider's package adds")
    return url.rstrip("/")


class GenerationSettings(ServerSettings, DatabaseSettings):
    """What the service needs to know."""

    credits_address: str
    """Where the credits service listens."""
    storage_url: str
    """Where videos are kept: `file:///absolute/folder`."""
    callback_keys_file: Path
    """File of the keys that prove callback addresses, base64, one a line; the first signs."""
    webhook_public_url: Annotated[str, AfterValidator(_is_callback)] | None = None
    """Where the provider reaches the webhook service, with the path; unset: it is only polled."""
    delivery_origins: str = ""
    """Origins besides the provider's own that outputs may come from, comma separated."""
    replicate_api_token: Annotated[
        SecretStr, Field(validation_alias="REPLICATE_API_TOKEN", min_length=1)
    ]
    """The provider's token."""
    replicate_base_url: Annotated[
        str, Field(validation_alias="REPLICATE_BASE_URL"), AfterValidator(_is_base_url)
    ] = "https://api.replicate.com"
    """The provider's API, without `/v1`."""
    profile: Literal["production", "fast"] = "production"
    """Set of durations: `fast` is for tests."""
    poll_interval_s: Annotated[float, Field(gt=0)] | None = None
    """Least time between two polls of a prediction; unset: the profile's, 2 s in production."""
    deadline_s: Annotated[float, Field(ge=120)] | None = None
    """From the create of a generation to the end of waiting for it; unset: 45 minutes."""
    grace_s: Annotated[float, Field(ge=0)] = 27.0
    """How long what is under way may take to end; by default longer than a create may take."""
    creates_per_s: Annotated[float, Field(gt=0, le=10)] = 10.0
    """Submissions a second, for all replicas together; the provider allows 10."""
    creates_burst: Annotated[int, Field(ge=1)] = 10
    """Submissions at once after a quiet time."""
    in_flight_max: Annotated[int, Field(ge=1)] = 100
    """Predictions under way at once, for all replicas together."""
    reconcile_interval_s: Annotated[float, Field(gt=0)] = 300.0
    """Between two comparisons of generations with their reservations."""
    reconcile_age_s: Annotated[float, Field(ge=0)] = 3600.0
    """How old an open reservation must be to be looked at; longer than a generation takes."""

    @property
    def timing(self) -> Timing:
        """The durations of the saga."""
        timing = FAST if self.profile == "fast" else Timing()
        return timing.adjusted(poll_s=self.poll_interval_s, deadline_s=self.deadline_s)

    @property
    def gate_policy(self) -> GatePolicy:
        """The limits of submissions."""
        return GatePolicy(self.creates_per_s, self.creates_burst, self.in_flight_max)

    @property
    def reconcile_policy(self) -> ReconcilePolicy:
        """When generations are compared with their reservations."""
        return ReconcilePolicy(self.reconcile_interval_s, self.reconcile_age_s)

    @property
    def origins(self) -> tuple[str, ...]:
        """The additional origins of outputs."""
        origins = (origin.strip().rstrip("/") for origin in self.delivery_origins.split(","))
        return tuple(origin for origin in origins if origin)
