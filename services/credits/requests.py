"""Turns the requests of the contract into commands, and says what is wrong with those that cannot.

What a request must hold is declared in the contract; here are the ranges, the lengths and the
tokens of pages, which annotations cannot express.
"""

import base64
import hashlib
import struct
from collections.abc import Iterator, Mapping
from datetime import timedelta

from reelworks.credits.v1 import credits_pb2

from services.credits.commands import AddCredits, AddedType, Commit, Refund, Reserve
from services.credits.records import CREDITS_MAX, TransactionType
from services.runtime.errors import FieldViolation, InvalidRequest
from services.runtime.validation import Check

__all__ = [
    "CHECKS",
    "page_token",
    "to_add_credits",
    "to_commit",
    "to_refund",
    "to_reserve",
    "version_in",
]

DESCRIPTION_CHARACTERS_MAX = 200
TTL_DEFAULT = timedelta(days=7)
TTL_MIN_NS = 10**9
TTL_MAX_NS = 30 * 86_400 * 10**9

_Type = credits_pb2.Transaction.Type
_ADDED_TYPES: Mapping[int, AddedType] = {
    _Type.PURCHASE: TransactionType.PURCHASE,
    _Type.BONUS: TransactionType.BONUS,
    _Type.ADJUSTMENT: TransactionType.ADJUSTMENT,
}
_TOKEN = struct.Struct(">Q16s")


def to_add_credits(request: credits_pb2.AddCreditsRequest) -> AddCredits:
    """Returns the command of a checked request."""
    return AddCredits(
        user_id=request.user_id,
        request_id=request.request_id,
        type=_ADDED_TYPES[request.type],
        credits=request.credits,
        description=request.description,
    )


def to_reserve(request: credits_pb2.ReserveRequest) -> Reserve:
    """Returns the command of a checked request."""
    ttl = timedelta(seconds=request.ttl.seconds, microseconds=request.ttl.nanos // 1000)
    return Reserve(
        user_id=request.user_id,
        reservation_id=request.reservation_id,
        credits=request.credits,
        ttl=ttl if request.HasField("ttl") else TTL_DEFAULT,
        description=request.description,
    )


def to_commit(request: credits_pb2.CommitRequest) -> Commit:
    """Returns the command of a checked request."""
    return Commit(
        user_id=request.user_id,
        reservation_id=request.reservation_id,
        credits=request.credits if request.HasField("credits") else None,
    )


def to_refund(request: credits_pb2.RefundRequest) -> Refund:
    """Returns the command of a checked request."""
    return Refund(
        user_id=request.user_id, reservation_id=request.reservation_id, reason=request.reason
    )


def page_token(user_id: str, version: int) -> str:
    """Returns the token of the page of a user's statement that follows `version`."""
    return base64.urlsafe_b64encode(_TOKEN.pack(version, _filter_hash(user_id))).decode()


def version_in(request: credits_pb2.ListTransactionsRequest) -> int | None:
    """Returns the version that the page asked for follows; None for the first page.

    Raises InvalidRequest when the token was not given for this user's statement.
    """
    if not request.page_token:
        return None
    try:
        version: int
        version, _ = _TOKEN.unpack(
            base64.b64decode(request.page_token, altchars=b"-_", validate=True)
        )
    except (struct.error, ValueError):
        raise InvalidRequest([_bad_token()]) from None
    # One token stands for one page: what would not be written so was not given by us.
    if version >= 2**63 or page_token(request.user_id, version) != request.page_token:
        raise InvalidRequest([_bad_token()])
    return version


def _filter_hash(user_id: str) -> bytes:
    """Returns what binds a token to the list that it was given for."""
    return hashlib.blake2b(f"ListTransactions:{user_id}".encode(), digest_size=16).digest()


def _bad_token() -> FieldViolation:
    return FieldViolation("page_token", "must be a next_page_token of this user's statement")


def _check_add_credits(request: credits_pb2.AddCreditsRequest) -> Iterator[FieldViolation]:
    if request.type not in _ADDED_TYPES:
        yield FieldViolation("type", "must be PURCHASE, BONUS or ADJUSTMENT")
    if request.type == _Type.ADJUSTMENT:
        if abs(request.credits) > CREDITS_MAX:
            yield FieldViolation("credits", f"must be between -{CREDITS_MAX} and {CREDITS_MAX}")
    else:
        yield from _check_credits(request.credits, 1)
    yield from _check_text("description", request.description)


def _check_reserve(request: credits_pb2.ReserveRequest) -> Iterator[FieldViolation]:
    yield from _check_credits(request.credits, 1)
    if request.HasField("ttl"):
        ttl_ns = request.ttl.seconds * 10**9 + request.ttl.nanos
        if not TTL_MIN_NS <= ttl_ns <= TTL_MAX_NS:
            yield FieldViolation("ttl", "must be between 1 second and 30 days")
    yield from _check_text("description", request.description)


def _check_commit(request: credits_pb2.CommitRequest) -> Iterator[FieldViolation]:
    yield from _check_credits(request.credits, 0)


def _check_refund(request: credits_pb2.RefundRequest) -> Iterator[FieldViolation]:
    yield from _check_text("reason", request.reason)


def _check_list_transactions(
    request: credits_pb2.ListTransactionsRequest,
) -> Iterator[FieldViolation]:
    try:
        version_in(request)
    except InvalidRequest as error:
        yield from error.violations


def _check_credits(number: int, least: int) -> Iterator[FieldViolation]:
    if not least <= number <= CREDITS_MAX:
        yield FieldViolation("credits", f"must be between {least} and {CREDITS_MAX}")


def _check_text(field: str, text: str) -> Iterator[FieldViolation]:
    # PostgreSQL keeps no NUL in texts.
    if len(text) > DESCRIPTION_CHARACTERS_MAX or "\0" in text:
        yield FieldViolation(
            field, f"must be at most {DESCRIPTION_CHARACTERS_MAX} characters, none of them NUL"
        )


CHECKS: Mapping[str, Check] = {
    request.DESCRIPTOR.full_name: check
    for request, check in (
        (credits_pb2.AddCreditsRequest, _check_add_credits),
        (credits_pb2.ReserveRequest, _check_reserve),
        (credits_pb2.CommitRequest, _check_commit),
        (credits_pb2.RefundRequest, _check_refund),
        (credits_pb2.ListTransactionsRequest, _check_list_transactions),
    )
}
"""What is checked of requests beyond their annotations, by full name of the message."""
