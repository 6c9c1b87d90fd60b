"""Settings of the webhook service."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from services.runtime.process import DatabaseSettings, ProcessSettings

__all__ = ["WebhookSettings", "split_address"]


def split_address(address: str) -> tuple[str, int]:
    """Returns host and port of `host:port`; raises ValueError if it is not that."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError("must be host:port")
    return host.strip("[]"), int(port)


def _host_and_port(address: str) -> str:
    split_address(address)
    return address


class WebhookSettings(ProcessSettings, DatabaseSettings):
    """What a webhook service is told when it starts."""

    http_address: Annotated[str, AfterValidator(_host_and_port)]
    """Where webhooks are taken: `host:port`. TLS ends at the proxy in front of it."""
    generation_address: str
    """Where generation answers: `host:port` or any other gRPC target."""
    callback_keys_file: Path
    """File with the keys that callback addresses are signed with: one in base64 a line."""
    lease_s: float = Field(default=30.0, gt=0)
    """How long an event being delivered is nobody else's, and after a crash has to wait."""
    replicate_webhook_secret: SecretStr | None = Field(
        default=None, validation_alias="REPLICATE_WEBHOOK_SECRET"
    )
    """Signing secrets, comma separated, newest first; `secret@end-time` for a retired one. None:
    Replicate is asked."""
    replicate_api_token: SecretStr | None = Field(
        default=None, validation_alias="REPLICATE_API_TOKEN"
    )
    """Token to ask Replicate with; used only while no secret is given."""
    replicate_base_url: str = Field(
        default="https://api.replicate.com",
        pattern=r"^https?://[^\s]+$",
        validation_alias="REPLICATE_BASE_URL",
    )
    """Where Replicate answers, without `/v1`."""
