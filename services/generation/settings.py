"""Settings of the generation service."""

from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, Json, SecretStr

from services.generation.cancellation import CancelPolicy
from services.generation.gate import GatePolicy
from services.generation.reconciliation import ReconcilePolicy
from services.generation.timing import FAST, Timing
from services.runtime.database_settings import DatabaseSettings
from services.runtime.server import ServerSettings
from services.runtime.settings import DAY_S, OR_FILE, PeerAddress, http_address

__all__ = ["GenerationSettings"]

DURATION_S_MAX = 30 * DAY_S
RETENTION_DAYS_MAX = 36_500.0
SUBMISSIONS_MAX = 100_000


def _is_callback(url: str) -> str:
    parts = urlsplit(http_address(url))
    host = parts.hostname or ""
    # A name without a dot is one of this network, where a simulator may be, but never Replicate.
    is_near = host in ("127.0.0.1", "::1") or not {".", ":"} & set(host)
    if parts.scheme != "https" and not is_near:
        raise ValueError("must be an https address, as the provider demands")
    if not parts.path:
        raise ValueError("must have the path of the webhook service")
    return url


def _is_base_url(url: str) -> str:
    address = http_address(url)
    if address.endswith("/v1"):
        raise ValueError("must not end in /v1, which is added to it")
    return address


def _is_pair(key: SecretStr | None) -> SecretStr | None:
    if key is not None and not all(key.get_secret_value().partition(":")):
        raise ValueError("must be id:secret")
    return key


def _are_origins(origins: str) -> str:
    for origin in filter(None, map(str.strip, origins.split(","))):
        if urlsplit(http_address(origin)).path not in ("", "/"):
            raise ValueError("must be origins, as https://host or https://host:port, without paths")
    return origins


def _are_durations(durations: dict[str, float]) -> dict[str, float]:
    known = {field.name for field in fields(Timing) if field.type in (float, "float")}
    for name, seconds in durations.items():
        if name not in known:
            raise ValueError(f"{name}: must be one of {', '.join(sorted(known))}")
        if not 0 < seconds <= DURATION_S_MAX:
            raise ValueError(f"{name}: must be above 0 and at most {DURATION_S_MAX:.0f}")
    return durations


class GenerationSettings(ServerSettings, DatabaseSettings):
    """What the service needs to know."""

    credits_address: PeerAddress
    """Where the credits service listens."""
    storage_url: str
    """Where files are kept: `file:///absolute/folder`, or `s3://bucket/prefix` with the options
    `endpoint`, `region` and `public`; keys of a bucket are read from `AWS_ACCESS_KEY_ID` and so on.
    """
    storage_access_key: Annotated[SecretStr | None, OR_FILE, AfterValidator(_is_pair)] = None
    """The key of an S3 bucket, `id:secret`. Unset: it is looked for where Amazon's tools do."""
    media_url: Annotated[str, AfterValidator(http_address)] | None = None
    """Where people fetch files that storage itself does not show to them: this address, then the
    file's key. Unset: they get storage's own addresses.
    """
    callback_keys_file: Path
    """File of the keys that prove callback addresses, base64, one a line; the first signs."""
    webhook_public_url: Annotated[str, AfterValidator(_is_callback)] | None = None
    """Where the provider reaches the webhook service, with the path; unset: it is only polled."""
    delivery_origins: Annotated[str, AfterValidator(_are_origins)] = ""
    """Origins besides the provider's own that outputs may come from, comma separated."""
    replicate_api_token: Annotated[
        SecretStr, OR_FILE, Field(validation_alias="REPLICATE_API_TOKEN", min_length=1)
    ]
    """The provider's token."""
    replicate_base_url: Annotated[
        str, Field(validation_alias="REPLICATE_BASE_URL"), AfterValidator(_is_base_url)
    ] = "https://api.replicate.com"
    """The provider's API, without `/v1`."""
    profile: Literal["production", "fast"] = "production"
    """Set of durations: `fast` is for tests."""
    provider_speed: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """How many times faster than the catalog says the provider is, as a simulator may be."""
    poll_interval_s: Annotated[float, Field(gt=0, le=DAY_S)] | None = None
    """Least time between two polls of a prediction; unset: the profile's, 2 s in production."""
    deadline_s: Annotated[float, Field(ge=120, le=DURATION_S_MAX)] | None = None
    """From the create of a generation to the end of waiting for it; unset: 45 minutes."""
    grace_s: Annotated[float, Field(ge=0, le=DAY_S)] = 27.0
    """How long what is under way may take to end; by default longer than a create may take."""
    creates_per_s: Annotated[float, Field(ge=0.001, le=10)] = 10.0
    """Submissions a second, for all replicas together; the provider allows 10."""
    creates_burst: Annotated[int, Field(ge=1, le=SUBMISSIONS_MAX)] = 10
    """Submissions at once after a quiet time."""
    in_flight_max: Annotated[int, Field(ge=1, le=SUBMISSIONS_MAX)] = 100
    """Predictions under way at once, for all replicas together."""
    polls_per_s: Annotated[float, Field(ge=0.001, le=50)] = 5.0
    """Looks at predictions a second by one replica; the provider allows all together 50."""
    cancel_refund_not_submitted_percent: Annotated[int, Field(ge=0, le=100)] = 100
    """The share of the price that a cancel gives back while the provider does not have the job."""
    cancel_refund_starting_percent: Annotated[int, Field(ge=0, le=100)] = 100
    """The same while the job waits at the provider."""
    cancel_refund_running_percent: Annotated[int, Field(ge=0, le=100)] = 100
    """The same while the model runs."""
    retention_days: Annotated[float, Field(gt=0, le=RETENTION_DAYS_MAX)] | None = None
    """How long videos are kept; unset: until they are deleted."""
    durations: Annotated[Json[dict[str, float]], AfterValidator(_are_durations)] = Field(
        default_factory=dict, validate_default=False
    )
    """Durations that differ from the profile's: JSON, from names in `Timing` to seconds."""
    unfinished_max: Annotated[int, Field(ge=1, le=100_000)] = 20
    """Unfinished generations of one user."""
    reconcile_interval_s: Annotated[float, Field(gt=0, le=DURATION_S_MAX)] = 300.0
    """Between two comparisons of generations with their reservations."""
    reconcile_age_s: Annotated[float, Field(ge=0, le=DURATION_S_MAX)] = 3600.0
    """How old an open reservation must be to be looked at; longer than a generation takes."""

    @property
    def timing(self) -> Timing:
        """The durations of the saga."""
        timing = FAST if self.profile == "fast" else Timing()
        chosen: dict[str, float | None] = {
            "poll_s": self.poll_interval_s,
            "deadline_s": self.deadline_s,
            "retention_s": None if self.retention_days is None else self.retention_days * 86_400,
        }
        named: dict[str, Any] = {name: s for name, s in chosen.items() if s is not None}
        return replace(timing, **named | self.durations)

    @property
    def retention(self) -> timedelta | None:
        """How long videos are kept; None: until they are deleted."""
        return None if self.retention_days is None else timedelta(days=self.retention_days)

    @property
    def gate_policy(self) -> GatePolicy:
        """The limits of submissions."""
        return GatePolicy(
            self.creates_per_s, self.creates_burst, self.in_flight_max, self.timing.probe_s
        )

    @property
    def cancel_policy(self) -> CancelPolicy:
        """What a cancel gives back."""
        return CancelPolicy(
            self.cancel_refund_not_submitted_percent,
            self.cancel_refund_starting_percent,
            self.cancel_refund_running_percent,
        )

    @property
    def reconcile_policy(self) -> ReconcilePolicy:
        """When generations are compared with their reservations."""
        return ReconcilePolicy(self.reconcile_interval_s, self.reconcile_age_s)

    @property
    def origins(self) -> tuple[str, ...]:
        """The additional origins of outputs."""
        origins = (origin.strip().rstrip("/") for origin in self.delivery_origins.split(","))
        return tuple(origin for origin in origins if origin)
