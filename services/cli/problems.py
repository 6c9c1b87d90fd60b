"""Says in a line what went wrong with a call, and what to do next."""

from services.cli.durations import duration
from services.runtime.errors import (
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    ServiceError,
    ServiceFailed,
    Unavailable,
)

__all__ = ["explain"]

_OPTIONS = {
    "negative_prompt": "--negative-prompt",
    "model": "--model",
    "resolution": "--resolution",
    "kind": "--kind",
    "aspect_ratio": "--aspect-ratio",
    "seed": "--seed",
    "image_uri": "--image-uri",
    "content": "--image",
    "query": "--query",
    "user_id": "--user",
    "request_id": "--request-id",
}
"""Options that fill a field, under the same name in every command."""

# A hint for each reason that leaves a person wondering; messages name field and rule themselves.
_HINTS = {
    "ACCOUNT_NOT_FOUND": "open the account with `reelworks credits open --user {user_id}`",
    "INSUFFICIENT_CREDITS": "add some with `reelworks credits grant 100 --user {user_id}`, then "
    "try again",
    "MODEL_NOT_FOUND": "`reelworks models` lists what can be asked for",
    "RESOLUTION_NOT_SUPPORTED": "`reelworks models` lists what can be asked for",
    "PARAMETER_NOT_SUPPORTED": "`reelworks models` lists what can be asked for",
    "IMAGE_NOT_ACCEPTED": "give a JPEG, PNG or WebP file with --image, or the https address of one "
    "with --image-uri, to a model that starts from an image",
    "GENERATION_NOT_FOUND": "`reelworks generations list --user {user_id}` lists what there is",
    "GENERATION_ID_REUSED": "it is the id of another generation: leave it out to make a new video",
    "ALREADY_SUCCEEDED": "`reelworks generations show {generation_id} --user {user_id}` says where",
    "NOT_RETRYABLE": "`reelworks generate` makes another video",
    "IMAGE_REMOVED": "`reelworks generate PROMPT --image FILE` brings it along",
    "TOO_MANY_GENERATIONS": "wait for one to end, or cancel one: `reelworks generations list "
    "--user {user_id}` lists them",
    "NOT_PARKED": "`reelworks generations parked` lists what is",
    "STAGE_NOT_POSSIBLE": "`reelworks generations resume {generation_id}` lets it go on where it "
    "stopped",
    "EVENT_NOT_FOUND": "`reelworks webhooks list` shows what there is",
    "RESERVATION_NOT_FOUND": "`reelworks credits reservations --user {user_id}` lists them",
    "REQUEST_ID_REUSED": "leave --request-id out to move credits once more",
    "VERIFICATION_TOO_LONG": "verify one user at a time with --user",
}


def explain(error: ServiceError, user_id: str = "", key: str = "") -> str:
    """Returns what went wrong and, where it helps, what to do next.

    `key` is the request id of a call that moves credits, which it may have done although it failed.
    """
    said = _said(error, user_id)
    if key and isinstance(error, Unavailable | DeadlineExceeded | ServiceFailed):
        return f"{said}; whether credits moved is open: repeat with --request-id {key}"
    return said


def _said(error: ServiceError, user_id: str) -> str:
    if isinstance(error, Unavailable) and not error.reason:
        return _away(error.message)
    if isinstance(error, DeadlineExceeded) and not error.reason:
        return "Reelworks did not answer in time"
    message = _message(error).rstrip(".") or error.reason or error.status.name
    hint = _HINTS.get(error.reason)
    if hint is not None:
        names = {"user_id": user_id or error.metadata.get("user_id", "USER")}
        names["generation_id"] = error.metadata.get("generation_id", "ID")
        return f"{message}; {hint.format(**names)}"
    if isinstance(error, Overloaded):
        return f"{message}; try again in {duration(error.retry_after_s)}"
    return message


def _away(message: str) -> str:
    """Returns why nobody answered, as far as gRPC's words tell."""
    if "handshake failed" in message:
        return (
            "what answers is not believed by REELWORKS_TLS_CA_FILE, has another name, or shows no "
            "certificate"
        )
    said = "Reelworks does not answer; start it with `reelworks up`"
    if "Socket closed" in message:
        return f"{said}, or show it a certificate that it believes: REELWORKS_TLS_CERTIFICATE_FILE"
    return said


def _message(error: ServiceError) -> str:
    """Returns what a service said, with the options to whose fields it refers."""
    if not isinstance(error, InvalidRequest):
        return error.message
    return "; ".join(f"{_place(v.field)} {v.rule}" for v in error.violations)


def _place(field: str) -> str:
    return f"{field} ({_OPTIONS[field]})" if field in _OPTIONS else field
