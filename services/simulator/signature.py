"""Signs webhooks as Replicate does, after the Standard Webhooks specification."""

import base64
import hashlib
import hmac
from collections.abc import Sequence

__all__ = ["make_secret", "signature_headers"]

SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix that every secret has.
SECRET_BYTES = 24


def make_secret(seed: int, token: str, rotations: int = 0) -> str:
    """Returns the signing secret of an account after so many rotations; the same for the same."""
    purpose = f"webhook secret|{token}" + (f"|{rotations}" if rotations else "")
    digest = hmac.digest(str(seed).encode(), purpose.encode(), hashlib.sha256)
    return SECRET_PREFIX + base64.b64encode(digest[:SECRET_BYTES]).decode()


def signature_headers(
    webhook_id: str, sent_at_s: float, body: bytes, secrets: Sequence[str]
) -> dict[str, str]:
    """Returns the three headers of a webhook, with one `v1` signature for each secret.

    Specification: https://github.com/standard-webhooks/standard-webhooks
    """
    content = f"{webhook_id}.{sent_at_s}.".encode() + body
    signatures = [
        base64.b64encode(
            hmac.digest(
                base64.b64decode(secret.removeprefix(SECRET_PREFIX)), content, hashlib.sha256
            )
        ).decode()
        for secret in secrets
    ]
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(sent_at_s),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
