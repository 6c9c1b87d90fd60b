"""Answers the calls of CreditsService: requests become commands, records become answers."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf import timestamp_pb2
from reelworks.credits.v1 import credits_pb2, credits_pb2_grpc

from services.credits.commands import Command, OpenAccount
from services.credits.ledger import Refusal, Refused
from services.credits.pages import (
    reservation_page_token,
    reservation_place_in,
    transaction_page_token,
    version_in,
)
from services.credits.reads import LedgerReads, ReservationPlace
from services.credits.records import Account, Reservation, Transaction
from services.credits.requests import (
    created_before_of,
    state_filter,
    to_add_credits,
    to_commit,
    to_refund,
    to_reimburse,
    to_reserve,
)
from services.credits.store import CreditsStore, Done
from services.credits.verification import Verifier
from services.credits.watchers import BalanceWatchers
from services.runtime.errors import (
    AlreadyExists,
    NotFound,
    PreconditionFailed,
    ServiceError,
    Unavailable,
)

__all__ = ["DOMAIN", "SERVICE_NAME", "CreditsServicer"]

DOMAIN = "credits.reelworks.dev"
SERVICE_NAME = credits_pb2.DESCRIPTOR.services_by_name["CreditsService"].full_name
PAGE_SIZE_DEFAULT = 50
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

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
        "The reservation id was used before with {field} = {was}.",
    ),
    Refusal.REQUEST_ID_REUSED: (
        AlreadyExists,
        "The request id was used before with {field} = {was}.",
    ),
    Refusal.BALANCE_LIMIT_EXCEEDED: (
        PreconditionFailed,
        "The account would hold more than {limit} credits.",
    ),
}


class CreditsServicer(credits_pb2_grpc.CreditsServiceServicer):
    """CreditsService on a ledger; requests are valid when they come here."""

    def __init__(
        self,
        store: CreditsStore,
        reads: LedgerReads,
        watchers: BalanceWatchers,
        verifier: Verifier,
        welcome_bonus_credits: int,
    ) -> None:
        self._store = store
        self._reads = reads
        self._watchers = watchers
        self._verifier = verifier
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
        return _balance_of(request.user_id, await self._reads.find_account(request.user_id))

    async def AddCredits(  # noqa: N802
        self, request: credits_pb2.AddCreditsRequest, context: Any
    ) -> credits_pb2.AddCreditsResponse:
        """Adds credits."""
        del context
        done = await self._submit(to_add_credits(request))
        return credits_pb2.AddCreditsResponse(
            balance=_balance(done.account),
            transaction=_transaction_of(done),
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

    async def Reimburse(  # noqa: N802
        self, request: credits_pb2.ReimburseRequest, context: Any
    ) -> credits_pb2.ReimburseResponse:
        """Gives back what was committed."""
        del context
        done = await self._submit(to_reimburse(request))
        return credits_pb2.ReimburseResponse(
            reservation=_reservation_of(done),
            balance=_balance(done.account),
            transaction=_transaction_of(done),
            replayed=done.replayed,
        )

    async def GetReservation(  # noqa: N802
        self, request: credits_pb2.GetReservationRequest, context: Any
    ) -> credits_pb2.Reservation:
        """Answers a reservation as it is now."""
        del context
        found = await self._reads.find_reservation(request.user_id, request.reservation_id)
        if found.account is None:
            raise _account_not_found(request.user_id)
        if found.reservation is None:
            raise _error(
                Refused(Refusal.RESERVATION_NOT_FOUND, {"reservation_id": request.reservation_id})
            )
        return _reservation(found.reservation)

    async def ListReservations(  # noqa: N802
        self, request: credits_pb2.ListReservationsRequest, context: Any
    ) -> credits_pb2.ListReservationsResponse:
        """Answers a page of reservations, newest first."""
        del context
        page_size = request.page_size or PAGE_SIZE_DEFAULT
        # One more than asked for tells whether there is a next page, here as below.
        found = await self._reads.list_reservations(
            page_size + 1,
            user_id=request.user_id or None,
            state=state_filter(request),
            created_before=created_before_of(request),
            after=reservation_place_in(request),
        )
        page = found[:page_size]
        next_page_token = ""
        if len(found) > page_size:
            last = page[-1]
            next_page_token = reservation_page_token(
                request, ReservationPlace(last.created_at, last.reservation_id, last.user_id)
            )
        return credits_pb2.ListReservationsResponse(
            reservations=map(_reservation, page), next_page_token=next_page_token
        )

    async def ListTransactions(  # noqa: N802
        self, request: credits_pb2.ListTransactionsRequest, context: Any
    ) -> credits_pb2.ListTransactionsResponse:
        """Answers a page of a user's statement, newest first."""
        del context
        page_size = request.page_size or PAGE_SIZE_DEFAULT
        found = await self._reads.list_transactions(
            request.user_id,
            page_size + 1,
            below_version=version_in(request),
            after_version=request.after_version,
        )
        if found is None:
            raise _account_not_found(request.user_id)
        page = found[:page_size]
        next_page_token = ""
        if len(found) > page_size:
            next_page_token = transaction_page_token(request, page[-1].version)
        return credits_pb2.ListTransactionsResponse(
            transactions=map(_transaction, page), next_page_token=next_page_token
        )

    async def WatchBalance(  # noqa: N802
        self, request: credits_pb2.WatchBalanceRequest, context: Any
    ) -> AsyncIterator[credits_pb2.WatchBalanceResponse]:
        """Streams the balance of a user: as it is, then whenever it is another."""
        del context
        async for account in self._watchers.watch(request.user_id):
            yield credits_pb2.WatchBalanceResponse(balance=_balance_of(request.user_id, account))
        raise Unavailable("", "The service is stopping; watch again.")

    async def VerifyLedger(  # noqa: N802
        self, request: credits_pb2.VerifyLedgerRequest, context: Any
    ) -> credits_pb2.VerifyLedgerResponse:
        """Answers what of the ledger does not agree with its transactions."""
        del context
        verified = await self._verifier.verify(request.user_id or None)
        if request.user_id and verified.is_empty:
            raise _account_not_found(request.user_id)  # Else a misspelt user would be proven.
        return credits_pb2.VerifyLedgerResponse(
            accounts_checked=verified.accounts,
            transactions_checked=verified.transactions,
            violations=[
                credits_pb2.VerifyLedgerResponse.Violation(
                    invariant=violation.invariant,
                    user_id=violation.user_id,
                    detail=violation.detail,
                )
                for violation in verified.violations
            ],
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


def _balance_of(user_id: str, account: Account | None) -> credits_pb2.Balance:
    """Returns the balance of a user, zero without an account."""
    return _balance(account) if account is not None else credits_pb2.Balance(user_id=user_id)


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
        reimbursed_credits=reservation.reimbursed,
        description=reservation.description,
        create_time=_timestamp(reservation.created_at),
        expire_time=_timestamp(reservation.expires_at),
        resolve_time=None if resolved_at is None else _timestamp(resolved_at),
    )


def _transaction_of(done: Done) -> credits_pb2.Transaction:
    if done.transaction is None:
        raise AssertionError("the command is known by its transaction")
    return _transaction(done.transaction)


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
    # `FromDatetime` goes through calendars, and takes as long as all the rest of an answer.
    elapsed = moment - _EPOCH
    return timestamp_pb2.Timestamp(
        seconds=elapsed.days * 86_400 + elapsed.seconds, nanos=elapsed.microseconds * 1000
    )
