"""Makes the three moves of money at the credits service, and tells the saga how each ended.

Every move is keyed by the generation's id, so it can be repeated after any failure.
"""

from collections.abc import Awaitable, Callable

from google.protobuf import duration_pb2
from reelworks.credits.v1 import credits_pb2, credits_pb2_grpc

from services.generation.events import (
    CommitExpired,
    Committed,
    CreditsContradicted,
    EffectFailed,
    Event,
    Refunded,
    Reserved,
    ReserveRefused,
)
from services.generation.state import FailureCode, Generation
from services.runtime.channel import invoke
from services.runtime.errors import (
    Conflict,
    DeadlineExceeded,
    NotAllowed,
    Overloaded,
    ServiceError,
    ServiceFailed,
    Unavailable,
)
from services.runtime.telemetry import get_logger

__all__ = ["CREDITS_DEADLINES_S", "Settlement"]

CREDITS_DEADLINES_S = {"GetBalance": 2.0, "Reserve": 5.0, "Commit": 5.0, "Refund": 5.0}
RESERVATION_TTL_S = 7 * 86_400
"""Longer than every way in which a generation can end."""

logger = get_logger(__name__)


class Settlement:
    """Reserves, commits and refunds the price of a generation."""

    def __init__(self, stub: "credits_pb2_grpc.CreditsServiceAsyncStub") -> None:
        self._stub = stub

    async def available(self, user_id: str) -> int:
        """Returns the credits that a user can spend now; raises Unavailable if nobody can say."""
        try:
            balance = await invoke(
                self._stub.GetBalance, credits_pb2.GetBalanceRequest(user_id=user_id)
            )
        except (Unavailable, DeadlineExceeded, Overloaded, ServiceFailed) as error:
            raise Unavailable(
                "CREDITS_UNAVAILABLE", "The balance cannot be read now; repeat the call."
            ) from error
        return int(balance.available_credits)

    async def reserve(self, generation: Generation) -> Event:
        """Sets the price aside."""
        request = credits_pb2.ReserveRequest(
            user_id=generation.user_id,
            reservation_id=generation.generation_id,
            credits=generation.price_credits,
            ttl=duration_pb2.Duration(seconds=RESERVATION_TTL_S),
            description=f"Video generation, {generation.request.model} "
            f"{generation.request.resolution}",
        )

        async def move() -> Event:
            answer = await invoke(self._stub.Reserve, request)
            reserved = credits_pb2.Reservation.State.RESERVED
            return Reserved(is_open=answer.reservation.state == reserved)

        def refused(error: ServiceError) -> Event | None:
            match error.reason:
                case FailureCode.INSUFFICIENT_CREDITS:
                    available = int(error.metadata.get("available", "0"))
                    return ReserveRefused(FailureCode.INSUFFICIENT_CREDITS, available)
                case FailureCode.ACCOUNT_NOT_FOUND:
                    return ReserveRefused(FailureCode.ACCOUNT_NOT_FOUND)
                case _:
                    return None

        return await _settle(generation, move, refused)

    async def commit(self, generation: Generation) -> Event:
        """Spends the price."""
        request = credits_pb2.CommitRequest(
            user_id=generation.user_id,
            reservation_id=generation.generation_id,
            credits=generation.charge_credits,
        )

        async def move() -> Event:
            await invoke(self._stub.Commit, request)
            return Committed()

        def refused(error: ServiceError) -> Event | None:
            if error.reason != "RESERVATION_EXPIRED":
                return None
            logger.error("video not charged", generation_id=generation.generation_id)
            return CommitExpired()

        return await _settle(generation, move, refused)

    async def refund(self, generation: Generation) -> Event:
        """Gives the price back."""
        is_failure = generation.refund_percent is None
        request = credits_pb2.RefundRequest(
            user_id=generation.user_id,
            reservation_id=generation.generation_id,
            reason=f"Generation {'failed' if is_failure else 'canceled'} - refund",
        )

        async def move() -> Event:
            await invoke(self._stub.Refund, request)
            return Refunded()

        return await _settle(generation, move, lambda _error: None)


async def _settle(
    generation: Generation,
    move: Callable[[], Awaitable[Event]],
    refused: Callable[[ServiceError], Event | None],
) -> Event:
    """Returns how a move ended; `refused` names the refusals that are part of the saga."""
    try:
        return await move()
    except (Unavailable, DeadlineExceeded, Overloaded, Conflict):
        return EffectFailed(generation.stage, is_outage=True)
    except NotAllowed:
        # A wrong certificate concerns every generation, and none would be helped by being parked.
        logger.exception("credits does not take our calls")
        return EffectFailed(generation.stage, is_outage=True)
    except ServiceFailed:
        return EffectFailed(generation.stage, is_outage=False)
    except ServiceError as error:
        event = refused(error)
        if event is not None:
            return event
        logger.error(
            "credits contradicts",
            generation_id=generation.generation_id,
            stage=generation.stage,
            reason=error.reason,
        )
        return CreditsContradicted(error.reason)
