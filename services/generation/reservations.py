"""Reads at the credits service what became of the credits that were set aside."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from google.protobuf import timestamp_pb2
from reelworks.credits.v1 import credits_pb2, credits_pb2_grpc

from services.generation.reconciliation import Reservation
from services.runtime.channel import invoke
from services.runtime.errors import NotFound
from services.runtime.telemetry import get_logger

__all__ = ["Reservations"]

PAGE_SIZE = 500
PAGES_MAX = 1000
"""A list of more pages than this has no end."""

logger = get_logger(__name__)


class Reservations:
    """The reservations of all users; each method raises ServiceError and nothing else."""

    def __init__(self, stub: "credits_pb2_grpc.CreditsServiceAsyncStub") -> None:
        self._stub = stub

    async def open_before(self, moment: datetime) -> AsyncIterator[Sequence[Reservation]]:
        """Yields, in pages, the reservations made before `moment` that are still open."""
        created_before = timestamp_pb2.Timestamp()
        created_before.FromDatetime(moment)
        page_token = ""
        for _ in range(PAGES_MAX):
            page = await invoke(
                self._stub.ListReservations,
                credits_pb2.ListReservationsRequest(
                    state=credits_pb2.Reservation.State.RESERVED,
                    created_before=created_before,
                    page_size=PAGE_SIZE,
                    page_token=page_token,
                ),
            )
            yield [_reservation(message) for message in page.reservations]
            page_token = page.next_page_token
            if not page_token:
                return
        logger.error("more open reservations than are read", pages=PAGES_MAX)

    async def find(self, user_id: str, reservation_id: str) -> Reservation | None:
        """Returns a reservation as it is now; None if the user has none of that id."""
        request = credits_pb2.GetReservationRequest(user_id=user_id, reservation_id=reservation_id)
        try:
            return _reservation(await invoke(self._stub.GetReservation, request))
        except NotFound:
            return None


def _reservation(message: credits_pb2.Reservation) -> Reservation:
    try:
        state = credits_pb2.Reservation.State.Name(message.state)
    except ValueError:
        state = "UNKNOWN"  # Of a later version of the contract.
    return Reservation(
        user_id=message.user_id,
        reservation_id=message.reservation_id,
        state=state,
        committed_credits=message.committed_credits,
        reimbursed_credits=message.reimbursed_credits,
    )
