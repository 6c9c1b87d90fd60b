"""The credits of users: what an account holds, why it changed, and how to change it."""

import contextlib
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from reelworks.credits.v1 import credits_pb2, credits_pb2_grpc

from services.client.connection import Connection
from services.client.ledger import (
    AddedCredits,
    Balance,
    LedgerReport,
    LedgerViolation,
    OpenedAccount,
    Reimbursed,
    Reservation,
    ReservationOutcome,
    ReservationPage,
    ReservationState,
    Transaction,
    TransactionPage,
    TransactionType,
    balance_of,
    outcome_of,
    report_of,
    reservation_of,
    transaction_of,
)
from services.client.watching import PATIENCE_S, Heard, watch_again
from services.client.wire import named_on_wire, timestamp
from services.runtime.channel import invoke
from services.runtime.metrics import CallMetrics
from services.runtime.tls import Certificates

__all__ = [
    "AddedCredits",
    "Balance",
    "CreditsClient",
    "LedgerReport",
    "LedgerViolation",
    "OpenedAccount",
    "Reimbursed",
    "Reservation",
    "ReservationOutcome",
    "ReservationPage",
    "ReservationState",
    "Transaction",
    "TransactionPage",
    "TransactionType",
]


class CreditsClient(Connection):
    """Calls the credits service; every call can be repeated with the same id.

    Each method raises ServiceError, whose `reason` is one of the service's.
    """

    def __init__(
        self,
        address: str,
        certificates: Certificates | None = None,
        measured: CallMetrics | None = None,
    ) -> None:
        super().__init__(address, certificates=certificates, measured=measured)
        self._stub = credits_pb2_grpc.CreditsServiceStub(self._channel)

    async def open_account(self, user_id: str) -> OpenedAccount:
        """Opens the account of a user with the welcome bonus, unless it exists."""
        request = credits_pb2.OpenAccountRequest(user_id=user_id)
        response = await invoke(self._stub.OpenAccount, request)
        return OpenedAccount(balance_of(response.balance), response.created)

    async def get_balance(self, user_id: str) -> Balance:
        """Returns what a user has: zero if the account was never opened."""
        request = credits_pb2.GetBalanceRequest(user_id=user_id)
        return balance_of(await invoke(self._stub.GetBalance, request))

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
            balance_of(response.balance), transaction_of(response.transaction), response.replayed
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
        return outcome_of(response)

    async def commit(
        self, user_id: str, reservation_id: str, credits_spent: int | None = None
    ) -> ReservationOutcome:
        """Spends a reservation, all of it if `credits_spent` is None; the rest is given back."""
        request = credits_pb2.CommitRequest(
            user_id=user_id, reservation_id=reservation_id, credits=credits_spent
        )
        response = await invoke(self._stub.Commit, request)
        return outcome_of(response)

    async def refund(
        self, user_id: str, reservation_id: str, reason: str = ""
    ) -> ReservationOutcome:
        """Gives back a reservation that was not committed."""
        request = credits_pb2.RefundRequest(
            user_id=user_id, reservation_id=reservation_id, reason=reason
        )
        response = await invoke(self._stub.Refund, request)
        return outcome_of(response)

    async def get_reservation(self, user_id: str, reservation_id: str) -> Reservation:
        """Returns a reservation as it is now."""
        request = credits_pb2.GetReservationRequest(user_id=user_id, reservation_id=reservation_id)
        return reservation_of(await invoke(self._stub.GetReservation, request))

    async def reimburse(
        self,
        user_id: str,
        reservation_id: str,
        credits_reimbursed: int,
        request_id: str,
        reason: str,
    ) -> Reimbursed:
        """Gives back credits of a committed reservation, once for each `request_id`."""
        request = credits_pb2.ReimburseRequest(
            user_id=user_id,
            reservation_id=reservation_id,
            credits=credits_reimbursed,
            request_id=request_id,
            reason=reason,
        )
        response = await invoke(self._stub.Reimburse, request)
        return Reimbursed(
            reservation_of(response.reservation),
            balance_of(response.balance),
            transaction_of(response.transaction),
            response.replayed,
        )

    async def list_reservations(
        self,
        user_id: str = "",
        page_size: int = 0,
        page_token: str = "",
        *,
        state: ReservationState | None = None,
        created_before: datetime | None = None,
    ) -> ReservationPage:
        """Returns a page of reservations, newest first; 0 takes 50, no `user_id` all users'."""
        request = credits_pb2.ListReservationsRequest(
            user_id=user_id,
            state=None if state is None else named_on_wire(state, "STATE_UNSPECIFIED"),
            created_before=None if created_before is None else timestamp(created_before),
            page_size=page_size,
            page_token=page_token,
        )
        response = await invoke(self._stub.ListReservations, request)
        return ReservationPage(
            tuple(reservation_of(reservation) for reservation in response.reservations),
            response.next_page_token,
        )

    async def reservations(
        self,
        user_id: str = "",
        page_size: int = 0,
        *,
        state: ReservationState | None = None,
        created_before: datetime | None = None,
    ) -> AsyncGenerator[Reservation]:
        """Yields reservations, newest first, asking for pages as they are used."""
        page_token = ""
        while True:
            page = await self.list_reservations(
                user_id, page_size, page_token, state=state, created_before=created_before
            )
            for reservation in page.reservations:
                yield reservation
            page_token = page.next_page_token
            if not page_token:
                return

    async def list_transactions(
        self, user_id: str, page_size: int = 0, page_token: str = "", *, after_version: int = 0
    ) -> TransactionPage:
        """Returns a page of the statement of a user, newest first; 0 takes 50 transactions.

        `after_version` leaves out those up to this version.
        """
        request = credits_pb2.ListTransactionsRequest(
            user_id=user_id,
            page_size=page_size,
            page_token=page_token,
            after_version=after_version,
        )
        response = await invoke(self._stub.ListTransactions, request)
        return TransactionPage(
            tuple(transaction_of(transaction) for transaction in response.transactions),
            response.next_page_token,
        )

    async def transactions(
        self, user_id: str, page_size: int = 0, *, after_version: int = 0
    ) -> AsyncGenerator[Transaction]:
        """Yields the statement of a user, newest first, asking for pages as they are used.

        It is the whole one, or what came after `after_version`.
        """
        page_token = ""
        while True:
            page = await self.list_transactions(
                user_id, page_size, page_token, after_version=after_version
            )
            for transaction in page.transactions:
                yield transaction
            page_token = page.next_page_token
            if not page_token:
                return

    async def watch_balance(
        self,
        user_id: str,
        patience_s: float = PATIENCE_S,
        heard: Heard = lambda _: None,
    ) -> AsyncGenerator[Balance]:
        """Yields the balance of a user as it is now, then each newer one.

        Goes on when the service went away and came back, and never yields an older version after a
        newer one, nor the same twice. Raises Unavailable when the service stays away for
        `patience_s`. It has no end of its own: leave it by `contextlib.aclosing`, or the service
        streams on. `heard` is told whether the service has this watch.
        """
        request = credits_pb2.WatchBalanceRequest(user_id=user_id)
        stream = watch_again(lambda: self._stub.WatchBalance(request), patience_s, heard)
        version = -1
        async with contextlib.aclosing(stream) as responses:
            async for response in responses:
                if response.balance.version > version:
                    version = response.balance.version
                    yield balance_of(response.balance)

    async def verify_ledger(self, user_id: str = "") -> LedgerReport:
        """Proves the sums of a user's account, of all accounts if none is named.

        It may take minutes.
        """
        request = credits_pb2.VerifyLedgerRequest(user_id=user_id)
        return report_of(await invoke(self._stub.VerifyLedger, request))
