"""The credits of users: what an account holds, why it changed, and how to change it."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from google.protobuf.duration_pb2 import Duration
from reelworks.credits.v1 import credits_pb2, credits_pb2_grpc

from services.client.connection import Connection
from services.client.wire import moment, moment_if_set, named, named_on_wire
from services.runtime.channel import invoke

__all__ = [
    "AddedCredits",
    "Balance",
    "CreditsClient",
    "OpenedAccount",
    "Reservation",
    "ReservationOutcome",
    "ReservationState",
    "Transaction",
    "TransactionPage",
    "TransactionType",
]


class TransactionType(StrEnum):
    """Why credits moved."""

    UNKNOWN = "UNKNOWN"
    PURCHASE = "PURCHASE"
    BONUS = "BONUS"
    ADJUSTMENT = "ADJUSTMENT"
    RESERVATION = "RESERVATION"
    DEDUCTION = "DEDUCTION"
    REFUND = "REFUND"
    EXPIRY = "EXPIRY"
    REIMBURSEMENT = "REIMBURSEMENT"


class ReservationState(StrEnum):
    """What became of reserved credits."""

    UNKNOWN = "UNKNOWN"
    RESERVED = "RESERVED"
    COMMITTED = "COMMITTED"
    REFUNDED = "REFUNDED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"


@dataclass(frozen=True, slots=True)
class Balance:
    """What a user has."""

    user_id: str
    """Whose balance this is."""
    available_credits: int
    """Credits that can be reserved now."""
    reserved_credits: int
    """Credits set aside by open reservations."""
    version: int
    """How many transactions led to it; 0 if the account was never opened."""
    updated_at: datetime | None
    """When it last changed; None if the account was never opened."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """One movement on an account."""

    user_id: str
    """Whose account this is on."""
    version: int
    """Place in the account's record: 1, 2, 3 and so on."""
    type: TransactionType
    """Why credits moved."""
    credits: int
    """Signed change of the available credits."""
    reserved_change: int
    """Signed change of the reserved credits."""
    available_after: int
    """Available credits after it."""
    reserved_after: int
    """Reserved credits after it."""
    reservation_id: str
    """The reservation that moved, which for a generation is its id; empty if none did."""
    request_id: str
    """Key of the call that added credits; empty for others."""
    description: str
    """What it was for, in words."""
    created_at: datetime
    """When it was written."""


@dataclass(frozen=True, slots=True)
class TransactionPage:
    """A part of a statement, newest first."""

    transactions: tuple[Transaction, ...]
    """The transactions of this page."""
    next_page_token: str
    """Asks for the next page; empty at the end."""


@dataclass(frozen=True, slots=True)
class OpenedAccount:
    """An account that exists."""

    balance: Balance
    """The balance as it is now."""
    created: bool
    """Whether this call opened it."""


@dataclass(frozen=True, slots=True)
class AddedCredits:
    """What was added to an account."""

    balance: Balance
    """The balance as it is now."""
    transaction: Transaction
    """The transaction that added the credits, at the first call."""
    replayed: bool
    """Whether an earlier call with the same key had added them."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Credits set aside for one piece of work, and what became of them."""

    user_id: str
    """Whose credits these are."""
    reservation_id: str
    """The caller's id of it."""
    credits: int
    """Credits asked for."""
    state: ReservationState
    """What became of them."""
    committed_credits: int
    """Credits spent; 0 unless COMMITTED."""
    description: str
    """What the work is, in words."""
    created_at: datetime
    """When it was made."""
    expires_at: datetime | None
    """From when on it can no longer be committed."""
    resolved_at: datetime | None
    """When it left RESERVED; None until then."""


@dataclass(frozen=True, slots=True)
class ReservationOutcome:
    """What a move of a reservation led to."""

    reservation: Reservation
    """The reservation as it is now."""
    balance: Balance
    """The balance as it is now."""
    replayed: bool
    """Whether an earlier call had done it."""


class CreditsClient(Connection):
    """Calls the credits service; every call can be repeated with the same id.

    Each method raises ServiceError, whose `reason` is one of the service's.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self._stub = credits_pb2_grpc.CreditsServiceStub(self._channel)

    async def open_account(self, user_id: str) -> OpenedAccount:
        """Opens the account of a user with the welcome bonus, unless it exists."""
        request = credits_pb2.OpenAccountRequest(user_id=user_id)
        response = await invoke(self._stub.OpenAccount, request)
        return OpenedAccount(_balance(response.balance), response.created)

    async def get_balance(self, user_id: str) -> Balance:
        """Returns what a user has: zero if the account was never opened."""
        request = credits_pb2.GetBalanceRequest(user_id=user_id)
        return _balance(await invoke(self._stub.GetBalance, request))

    async def add_credits(
        self,
        user_id: str,
        credits_added: int,
        kind: TransactionType,
        request_id: str,
        description: str = "",
    ) -> AddedCredits:
        """Adds credits as a PURCHASE, BONUS or ADJUSTMENT, once for each `request_id`.

        Only an ADJUSTMENT may be negative.
        """
        request = credits_pb2.AddCreditsRequest(
            user_id=user_id,
            credits=credits_added,
            type=named_on_wire(kind, "TYPE_UNSPECIFIED"),
            request_id=request_id,
            description=description,
        )
        response = await invoke(self._stub.AddCredits, request)
        return AddedCredits(
            _balance(response.balance), _transaction(response.transaction), response.replayed
        )

    async def reserve(
        self,
        user_id: str,
        reservation_id: str,
        credits_reserved: int,
        time_to_live: timedelta | None = None,
        description: str = "",
    ) -> ReservationOutcome:
        """Sets credits aside for `time_to_live`, 7 days if it is None."""
        duration = None
        if time_to_live is not None:
            duration = Duration()
            duration.FromTimedelta(time_to_live)
        request = credits_pb2.ReserveRequest(
            user_id=user_id,
            reservation_id=reservation_id,
            credits=credits_reserved,
            ttl=duration,
            description=description,
        )
        response = await invoke(self._stub.Reserve, request)
        return _outcome(response)

    async def commit(
        self, user_id: str, reservation_id: str, credits_spent: int | None = None
    ) -> ReservationOutcome:
        """Spends a reservation, all of it if `credits_spent` is None; the rest is given back."""
        request = credits_pb2.CommitRequest(
            user_id=user_id, reservation_id=reservation_id, credits=credits_spent
        )
        response = await invoke(self._stub.Commit, request)
        return _outcome(response)

    async def refund(
        self, user_id: str, reservation_id: str, reason: str = ""
    ) -> ReservationOutcome:
        """Gives back a reservation that was not committed."""
        request = credits_pb2.RefundRequest(
            user_id=user_id, reservation_id=reservation_id, reason=reason
        )
        response = await invoke(self._stub.Refund, request)
        return _outcome(response)

    async def get_reservation(self, user_id: str, reservation_id: str) -> Reservation:
        """Returns a reservation as it is now."""
        request = credits_pb2.GetReservationRequest(user_id=user_id, reservation_id=reservation_id)
        return _reservation(await invoke(self._stub.GetReservation, request))

    async def list_transactions(
        self, user_id: str, page_size: int = 0, page_token: str = ""
    ) -> TransactionPage:
        """Returns a page of the statement of a user, newest first; 0 takes 50 transactions."""
        request = credits_pb2.ListTransactionsRequest(
            user_id=user_id, page_size=page_size, page_token=page_token
        )
        response = await invoke(self._stub.ListTransactions, request)
        return TransactionPage(
            tuple(_transaction(transaction) for transaction in response.transactions),
            response.next_page_token,
        )

    async def transactions(self, user_id: str, page_size: int = 0) -> AsyncGenerator[Transaction]:
        """Yields the whole statement of a user, newest first, asking for pages as they are used."""
        page_token = ""
        while True:
            page = await self.list_transactions(user_id, page_size, page_token)
            for transaction in page.transactions:
                yield transaction
            page_token = page.next_page_token
            if not page_token:
                return


def _balance(message: credits_pb2.Balance) -> Balance:
    return Balance(
        user_id=message.user_id,
        available_credits=message.available_credits,
        reserved_credits=message.reserved_credits,
        version=message.version,
        updated_at=moment_if_set(message, "update_time"),
    )


def _transaction(message: credits_pb2.Transaction) -> Transaction:
    return Transaction(
        user_id=message.user_id,
        version=message.version,
        type=named(TransactionType, credits_pb2.Transaction.Type, message.type),
        credits=message.credits,
        reserved_change=message.reserved_change,
        available_after=message.available_after,
        reserved_after=message.reserved_after,
        reservation_id=message.reservation_id,
        request_id=message.request_id,
        description=message.description,
        created_at=moment(message.create_time),
    )


def _reservation(message: credits_pb2.Reservation) -> Reservation:
    return Reservation(
        user_id=message.user_id,
        reservation_id=message.reservation_id,
        credits=message.credits,
        state=named(ReservationState, credits_pb2.Reservation.State, message.state),
        committed_credits=message.committed_credits,
        description=message.description,
        created_at=moment(message.create_time),
        expires_at=moment_if_set(message, "expire_time"),
        resolved_at=moment_if_set(message, "resolve_time"),
    )


def _outcome(
    message: credits_pb2.ReserveResponse | credits_pb2.CommitResponse | credits_pb2.RefundResponse,
) -> ReservationOutcome:
    return ReservationOutcome(
        _reservation(message.reservation), _balance(message.balance), message.replayed
    )
