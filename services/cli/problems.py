"""Says in a line what went wrong with a call, and what to do next."""

from services.runtime.errors import DeadlineExceeded, ServiceError, ServiceFailed, Unavailable

__all__ = ["explain"]

# A hint for each reason that leaves a person wondering; messages name field and rule themselves.
_HINTS = {
    "ACCOUNT_NOT_FOUND": "open the account with `reelworks credits open --user {user_id}`",
    "INSUFFICIENT_CREDITS": "add some with `reelworks credits grant 100 --user {user_id}`, then "
    "try again",
    "MODEL_NOT_FOUND": "`reelworks models` lists what can be asked for",
    "RESOLUTION_NOT_SUPPORTED": "`reelworks models` lists what can be asked for",
    "PARAMETER_NOT_SUPPORTED": "`reelworks models` lists what can be asked for",
    "IMAGE_NOT_ACCEPTED": "give the https address of an image with --image-uri",
    "GENERATION_NOT_FOUND": "`reelworks generations list --user {user_id}` lists what there is",
    "GENERATION_ID_REUSED": "leave --generation-id out to make another video",
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
        return "Reelworks does not answer; start it with `reelworks up`"
    if isinstance(error, DeadlineExceeded) and not error.reason:
        return "Reelworks did not answer in time"
    message = error.message.rstrip(".") or error.reason or error.status.name
    hint = _HINTS.get(error.reason)
    if hint is None:
        return message
    return f"{message}; {hint.format(user_id=user_id or error.metadata.get('user_id', 'USER'))}"
