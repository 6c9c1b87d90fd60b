"""Answers the calls of CreditsService: requests become commands, records become answers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from google.protobuf import timestamp_pb2
from reelworks.credits.v1 import credits_pb2, credits_pb2_grpc

from services.credits.commands import Command, OpenAccount
from services.credits.ledger import Refusal, Refused
from services.credits.records import Account, Reservation, Transaction
from services.credits.requests import (
    page_token,
    to_add_credits,
    to_commit,
    to_refund,
    to_reserve,
    version_in,
)
from services.credits.store import CreditsStore, Done
from services.runtime.errors import AlreadyExists, NotFound, PreconditionFailed, ServiceError

__all__ = ["DOMAIN", "SERVICE_NAME", "CreditsServicer"]

DOMAIN = "credits.reelworks.dev"
SERVICE_NAME = credits_pb2.DESCRIPTOR.services_by_name["CreditsService"].full_name
PAGE_SIZE_DEFAULT = 50

_REFUSALS: Mapping[Refusal, tuple[type[ServiceError], str]] = {
    Refusal.ACCOUNT_NOT_FOUND: (NotFound, "The account of {user_id} was never opened."),
    Refusal.RESERVATION_NOT_FOUND: (NotFound, "There is no reservation {reservation_id}."),
    Refusal.INSUFFICIENT_CREDITS: (
        PreconditionFailed,
        "{required} credits are required, {available} are available.",
    ),
    Refusal.RESERVATION_REJECTED: (
        PreconditionFailed,
        "The reservation was refused, so nothing is set aside.",
    ),
    Refusal.RESERVATION_EXPIRED: (
        PreconditionFailed,
        "The reservation expired at {expire_time}.",
    ),
    Refusal.ALREADY_COMMITTED: (
        PreconditionFailed,
        "{committed} credits of the reservation were committed.",
    ),
    Refusal.ALREADY_REFUNDED: (PreconditionFailed, "The reservation was refunded."),
    Refusal.NOT_COMMITTED: (PreconditionFailed, "The reservation is {state}, not COMMITTED."),
    Refusal.COMMIT_EXCEEDS_RESERVATION: (
        PreconditionFailed,
        "{required} credits are to be committed, {credits} are reserved.",
    ),
    Refusal.COMMIT_MISMATCH: (
        PreconditionFailed,
        "{required} credits are to be committed, {committed} were committed before.",
    ),
    Refusal.REIMBURSE_EXCEEDS_COMMITTED: (
        PreconditionFailed,
        "{required} credits are to be reimbursed; of {committed} committed, {reimbursed} were.",
    ),
    Refusal.RESERVATION_ID_REUSED: (
        AlreadyExists,
        "The reservation id was used with another {field}: {was}.",
    ),
    Refusal.REQUEST_ID_REUSED: (
        AlreadyExists,
        "The request id was used with another {field}: {was}.",
    ),
    Refusal.BALANCE_LIMIT_EXCEEDED: (
        PreconditionFailed,
        "The account would hold more than {limit} credits.",
    ),
}


class CreditsServicer(credits_pb2_grpc.CreditsServiceServicer):
    """CreditsService on a store; requests are valid when they come here."""

    def __init__(self, store: CreditsStore, welcome_bonus_credits: int) -> None:
        self._store = store
        self._welcome_bonus_credits = welcome_bonus_credits

    async def OpenAccount(  # noqa: N802  The contract's name, as all below.
        self, request: credits_pb2.OpenAccountRequest, context: Any
    ) -> credits_pb2.OpenAccountResponse:
        """Opens the account of a user."""
        del context
        done = await self._submit(OpenAccount(request.user_id, self._welcome_bonus_credits))
        return credits_pb2.OpenAccountResponse(
            balance=_balance(done.account), created=not done.replayed
        )

    async def GetBalance(  # noqa: N802
        self, request: credits_pb2.GetBalanceRequest, context: Any
    ) -> credits_pb2.Balance:
        """Answers the balance of a user, zero without an account."""
        del context
        account = await self._store.find_account(request.user_id)
        if account is None:
            return credits_pb2.Balance(user_id=request.user_id)
        return _balance(account)

    async def AddCredits(  # noqa: N802
        self, request: credits_pb2.AddCreditsRequest, context: Any
    ) -> credits_pb2.AddCreditsResponse:
        """Adds credits."""
        del context
        done = await self._submit(to_add_credits(request))
        if done.transaction is None:
            raise AssertionError("credits are added by a transaction")
        return credits_pb2.AddCreditsResponse(
            balance=_balance(done.account),
            transaction=_transaction(done.transaction),
            replayed=done.replayed,
        )

    async def Reserve(  # noqa: N802
        self, request: credits_pb2.ReserveRequest, context: Any
    ) -> credits_pb2.ReserveResponse:
        """Sets credits aside."""
        del context
        done = await self._submit(to_reserve(request))
        return credits_pb2.ReserveResponse(
            reservation=_reservation_of(done),
            balance=_balance(done.account),
            replayed=done.replayed,
        )

    async def Commit(  # noqa: N802
        self, request: credits_pb2.CommitRequest, context: Any
    ) -> credits_pb2.CommitResponse:
        """Spends what is reserved."""
        del context
        done = await self._submit(to_commit(request))
        return credits_pb2.CommitResponse(
            reservation=_reservation_of(done),
            balance=_balance(done.account),
            replayed=done.replayed,
        )

    async def Refund(  # noqa: N802
        self, request: credits_pb2.RefundRequest, context: Any
    ) -> credits_pb2.RefundResponse:
        """Gives back what is reserved."""
        del context
        done = await self._submit(to_refund(request))
        return credits_pb2.RefundResponse(
            reservation=_reservation_of(done),
            balance=_balance(done.account),
            replayed=done.replayed,
        )

    async def GetReservation(  # noqa: N802
        self, request: credits_pb2.GetReservationRequest, context: Any
    ) -> credits_pb2.Reservation:
        """Answers a reservation as it is now."""
        del context
        found = await self._store.find_reservation(request.user_id, request.reservation_id)
        if found.account is None:
            raise _account_not_found(request.user_id)
        if found.reservation is None:
            raise _error(
                Refused(Refusal.RESERVATION_NOT_FOUND, {"reservation_id": request.reservation_id})
            )
        return _reservation(found.reservation)

    async def ListTransactions(  # noqa: N802
        self, request: credits_pb2.ListTransactionsRequest, context: Any
    ) -> credits_pb2.ListTransactionsResponse:
        """Answers a page of a user's statement, newest first."""
        del context
        page_size = request.page_size or PAGE_SIZE_DEFAULT
        # One more than asked for tells whether there is a next page.
        found = await self._store.list_transactions(
            request.user_id, version_in(request), page_size + 1
        )
        if found is None:
            raise _account_not_found(request.user_id)
        page = found[:page_size]
        return credits_pb2.ListTransactionsResponse(
            transactions=[_transaction(transaction) for transaction in page],
            next_page_token=(
                page_token(request.user_id, page[-1].version) if len(found) > page_size else ""
            ),
        )

    async def _submit(self, command: Command) -> Done:
        """Returns what became of a command; raises the error of a refusal."""
        answer = await self._store.submit(command)
        if isinstance(answer, Refused):
            raise _error(answer)
        return answer


def _error(refused: Refused) -> ServiceError:
    kind, message = _REFUSALS[refused.refusal]
    metadata: dict[str, object] = dict(refused.metadata)
    return kind(refused.refusal, message.format(**metadata), **metadata)


def _account_not_found(user_id: str) -> ServiceError:
    return _error(Refused(Refusal.ACCOUNT_NOT_FOUND, {"user_id": user_id}))


def _balance(account: Account) -> credits_pb2.Balance:
    return credits_pb2.Balance(
        user_id=account.user_id,
        available_credits=account.available,
        reserved_credits=account.reserved,
        version=account.version,
        update_time=_timestamp(account.updated_at),
    )


def _reservation_of(done: Done) -> credits_pb2.Reservation:
    if done.reservation is None:
        raise AssertionError("the command names a reservation")
    return _reservation(done.reservation)


def _reservation(reservation: Reservation) -> credits_pb2.Reservation:
    resolved_at = reservation.resolved_at
    return credits_pb2.Reservation(
        user_id=reservation.user_id,
        reservation_id=reservation.reservation_id,
        credits=reservation.credits,
        state=reservation.state.value,
        committed_credits=reservation.committed,
        description=reservation.description,
        create_time=_timestamp(reservation.created_at),
        expire_time=_timestamp(reservation.expires_at),
        resolve_time=None if resolved_at is None else _timestamp(resolved_at),
    )


def _transaction(transaction: Transaction) -> credits_pb2.Transaction:
    return credits_pb2.Transaction(
        user_id=transaction.user_id,
        version=transaction.version,
        type=transaction.type.value,
        credits=transaction.available_delta,
        reserved_change=transaction.reserved_delta,
        available_after=transaction.available_after,
        reserved_after=transaction.reserved_after,
        reservation_id=transaction.reservation_id or "",
        request_id=transaction.request_id or "",
        description=transaction.description,
        create_time=_timestamp(transaction.created_at),
    )


def _timestamp(moment: datetime) -> timestamp_pb2.Timestamp:
    timestamp = timestamp_pb2.Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
