"""Settings of the webhook service."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from services.runtime.database_settings import DatabaseSettings
from services.runtime.server import ServerSettings
from services.runtime.settings import DAY_S, OR_FILE, HostAndPort, PeerAddress, http_address

__all__ = ["WebhookSettings"]

DAYS_MAX = 36_500


class WebhookSettings(ServerSettings, DatabaseSettings):
    """What a webhook service is told when it starts; `address` is its port for operators."""

    http_address: HostAndPort
    """Where webhooks are taken: `host:port`. TLS ends at the proxy in front of it."""
    generation_address: PeerAddress
    """Where generation answers: `host:port` or any other gRPC target; without certificates, on this
    machine."""
    callback_keys_file: Path
    """File with the keys that callback addresses are signed with: one in base64 a line."""
    lease_s: float = Field(default=30.0, gt=0, le=DAY_S)
    """How long an event being delivered is nobody else's, and after a crash has to wait."""
    body_retention_h: float = Field(default=72.0, gt=0, le=DAYS_MAX * 24)
    """How long body and headers are kept after the delivery to a generation that used them."""
    unused_retention_days: float = Field(default=90.0, gt=0, le=DAYS_MAX)
    """How long events that are DEAD, or that no generation used, stay whole; then given up."""
    row_retention_days: float = Field(default=27.0, ge=3, le=DAYS_MAX)
    """How long the rest is kept when the body is gone, so that a repetition is recognized."""
    webhook_secrets_file: Path | None = None
    """File with the signing secrets, one a line, newest first, `secret@end-time` for a retired one;
    it is read again when it changes. None: they are in the next setting, or Replicate is asked."""
    replicate_webhook_secret: SecretStr | None = Field(
        default=None, validation_alias="REPLICATE_WEBHOOK_SECRET"
    )
    """The same, comma separated. None: they are in a file, or Replicate is asked."""
    replicate_api_token: Annotated[SecretStr | None, OR_FILE] = Field(
        default=None, validation_alias="REPLICATE_API_TOKEN"
    )
    """Token to ask Replicate with; used only while no secret is given."""
    replicate_base_url: Annotated[str, AfterValidator(http_address)] = Field(
        default="https://api.replicate.com", validation_alias="REPLICATE_BASE_URL"
    )
    """Where Replicate answers, without `/v1`."""
