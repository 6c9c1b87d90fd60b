"""People who ask for videos, and write down every answer that they get."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, assert_never

from services.client.credits import CreditsClient, TransactionType
from services.client.generations import DeletedGenerations, Generation, GenerationClient
from services.client.generations import Kind as MadeKind
from services.runtime.errors import (
    Conflict,
    DeadlineExceeded,
    Overloaded,
    ServiceError,
    Unavailable,
)
from tests.chaos.house import CREDITS_EACH
from tests.chaos.stack.journal import Journal
from tests.chaos.stack.plan import POOR, USERS, Errand, Kind
from tests.pictures import make_picture

LOOK_S = 0.4
PAUSE_S = 0.3
HASTE_S = 0.15
"""How long somebody waits who does not wait for the answer."""
ACCOUNTS_S_MAX = 60.0
BALANCES_S_MAX = 30.0
"""Who insists must be answered within these, whatever `over` says."""
POOR_CREDITS = 5
"""Less than anything costs."""

T = TypeVar("T")


class GaveUp(Exception):
    """It was not answered before the run was over."""


@dataclass(frozen=True)
class People:
    """What all who ask have in common."""

    journal: Journal
    generations: GenerationClient
    credits_: CreditsClient
    over: asyncio.Event
    """Set when nobody shall ask any more."""

    async def open_accounts(self) -> None:
        """Opens the account of everybody, and leaves one with nearly nothing.

        Raises TimeoutError if that takes too long, though nothing is troubled yet.
        """
        async with asyncio.timeout(ACCOUNTS_S_MAX):
            await self._open_accounts()

    async def _open_accounts(self) -> None:
        for user in [f"user-{number}" for number in range(USERS)] + [POOR]:
            witness = Witness(self, user)
            await witness.insist("open_account", partial(self.credits_.open_account, user))
            self.journal.note("given", user_id=user, credits=CREDITS_EACH)
        await Witness(self, POOR).insist(
            "add_credits",
            lambda: self.credits_.add_credits(
                POOR, POOR_CREDITS - CREDITS_EACH, TransactionType.ADJUSTMENT, "leave-little"
            ),
        )
        self.journal.note("given", user_id=POOR, credits=POOR_CREDITS - CREDITS_EACH)

    async def run(self, errand: Errand) -> None:
        """Does an errand to its end, or until the run is over."""
        with contextlib.suppress(GaveUp):
            await asyncio.sleep(errand.at_s)
            await _Person(self, errand).go()

    async def tell_balances(self) -> None:
        """Has everybody look at what they have in the end."""
        try:
            async with asyncio.timeout(BALANCES_S_MAX):
                for user in [f"user-{number}" for number in range(USERS)] + [POOR]:
                    ask = partial(self.credits_.get_balance, user)
                    await Witness(self, user).insist("balance", ask, is_patient=True)
        except TimeoutError:
            self.journal.note("unsettled", left=["balances cannot be read"])


@dataclass(frozen=True)
class Witness:
    """Makes calls for a user and writes down what came of each."""

    people: People
    user: str
    errand: int = -1

    async def insist(
        self,
        call: str,
        ask: Callable[[], Awaitable[T]],
        *,
        is_patient: bool = False,
        **about: Any,
    ) -> T | ServiceError:
        """Calls again and again until there is an answer; a refusal is one.

        Only who is patient does so when the run is over, and within a time of their own.
        """
        while is_patient or not self.people.over.is_set():
            try:
                return await self.try_once(call, ask, **about)
            except _Unknown as unknown:
                await asyncio.sleep(unknown.pause_s)
        raise GaveUp

    async def try_once(
        self, call: str, ask: Callable[[], Awaitable[T]], **about: Any
    ) -> T | ServiceError:
        """Calls once; raises _Unknown if it is open what came of it, or it is to be repeated."""
        note = {"user_id": self.user, "errand": self.errand, "call": call} | about
        journal = self.people.journal
        try:
            answer = await ask()
        except (Unavailable, DeadlineExceeded, Conflict, Overloaded) as error:
            journal.note("told", **note, outcome="unknown", **_error(error))
            pause_s = error.retry_after_s if isinstance(error, Overloaded) else PAUSE_S
            raise _Unknown(min(pause_s, 3.0)) from None
        except ServiceError as error:
            if not error.reason and error.status.name in ("INTERNAL", "UNKNOWN"):
                # The judge holds it against the service; people ask again all the same.
                journal.note("told", **note, outcome="unknown", **_error(error))
                raise _Unknown(PAUSE_S) from None
            journal.note("told", **note, outcome="refused", **_error(error))
            return error
        journal.note("told", **note, outcome="ok", answer=_told(answer))
        return answer


class _Unknown(Exception):
    """Nobody knows what came of a call."""

    def __init__(self, pause_s: float) -> None:
        super().__init__()
        self.pause_s = pause_s


def _error(error: ServiceError) -> dict[str, Any]:
    return {"status": error.status.name, "reason": error.reason, "message": error.message[:200]}


def _told(answer: object) -> dict[str, Any]:
    """Returns of an answer what can be held against the end."""
    if isinstance(answer, Generation):
        return {
            "generation_id": answer.generation_id, "user_id": answer.user_id,
            "status": answer.status.value, "stage": answer.stage.value, "version": answer.version,
            "kind": answer.kind.value, "model": answer.model, "resolution": answer.resolution,
            "prompt": answer.prompt, "cost_credits": answer.cost_credits,
            "charged_credits": answer.charged_credits, "created_at": answer.created_at.isoformat(),
            "retry_of": answer.retry_of, "is_deleted": answer.deleted_at is not None,
            "job_id": answer.job_id,
        }  # fmt: skip
    if isinstance(answer, DeletedGenerations):
        return {"deleted_ids": list(answer.deleted_ids)}
    names = ("available_credits", "reserved_credits", "version")
    return {name: getattr(answer, name) for name in names if hasattr(answer, name)}


class _Person:
    """Somebody on an errand."""

    def __init__(self, people: People, errand: Errand) -> None:
        self._errand = errand
        self._generations = people.generations
        self._witness = Witness(people, errand.user, errand.number)
        self._people = people
        self._image_uri = ""

    async def go(self) -> None:
        """Does what the errand says."""
        errand = self._errand
        match errand.kind:
            case Kind.PLAIN:
                await self._create_and_wait()
            case Kind.REPEATED:
                await self._create()
                await asyncio.sleep(errand.pause_s)
                await self._create_and_wait()
            case Kind.CANCELED:
                await self._create()
                await asyncio.sleep(errand.pause_s)
                await self._cancel()
                await self._cancel()
                await self._wait(errand.generation_id)
            case Kind.FAILING:
                await self._create_and_wait()
                await self._retry()
                await self._retry()
                await self._wait(errand.other_id)
            case Kind.DELETED:
                await self._create_and_wait()
                await self._delete()
                await self._get(errand.generation_id)
            case Kind.HASTY:
                await self._leave_at_once()
                await asyncio.sleep(errand.pause_s)
                await self._create_and_wait()
            case Kind.CONTRARY:
                await self._create()
                await self._create(prompt="something else")
                await self._wait(errand.generation_id)
            case Kind.BAD:
                await self._create(**self._nonsense())
            case Kind.POOR:
                await self._create()
                await asyncio.sleep(errand.pause_s)
                await self._create()
            case Kind.IMAGE:
                await self._upload()
                await self._create_and_wait()
            case Kind.STRANGER:
                await self._create()
                await self._meddle()
                await self._wait(errand.generation_id)
            case _:
                assert_never(errand.kind)

    def _nonsense(self) -> dict[str, Any]:
        return (
            {"prompt": ""}, {"model": "t2v-99B"}, {"resolution": "4320p"}, {"seed": -1},
            {"prompt": "x" * 501}, {"image_uri": "upload:nothing"},
        )[self._errand.number % 6]  # fmt: skip

    async def _create_and_wait(self) -> None:
        answer = await self._create()
        if isinstance(answer, Generation):
            await self._wait(self._errand.generation_id)

    async def _create(self, **changes: Any) -> Generation | ServiceError:
        return await self._witness.insist(
            "create", self._asking(changes), generation_id=self._errand.generation_id,
            changes=changes,
        )  # fmt: skip

    def _asking(self, changes: dict[str, Any]) -> Callable[[], Awaitable[Generation]]:
        errand = self._errand
        kind = MadeKind.IMAGE_TO_VIDEO if errand.kind is Kind.IMAGE else MadeKind.TEXT_TO_VIDEO
        fields: dict[str, Any] = {
            "kind": kind,
            "model": errand.model,
            "resolution": errand.resolution,
            "prompt": errand.prompt,
            "image_uri": self._image_uri,
        } | changes
        return lambda: self._generations.create(
            errand.user, generation_id=errand.generation_id, **fields
        )

    async def _leave_at_once(self) -> None:
        about = {"generation_id": self._errand.generation_id, "changes": {}}
        try:
            async with asyncio.timeout(HASTE_S):
                await self._witness.try_once("create", self._asking({}), **about)
        except TimeoutError:
            self._people.journal.note(
                "told", user_id=self._errand.user, errand=self._errand.number, call="create",
                outcome="unknown", status="", reason="", message="nobody waited for it", **about,
            )  # fmt: skip
        except _Unknown:
            pass  # It will be asked again.

    async def _upload(self) -> None:
        picture = make_picture()
        answer = await self._witness.insist(
            "upload", lambda: self._generations.upload_image(self._errand.user, picture)
        )
        if not isinstance(answer, ServiceError):
            self._image_uri = answer.image_uri

    async def _cancel(self) -> None:
        errand = self._errand
        await self._witness.insist(
            "cancel",
            lambda: self._generations.cancel(errand.user, errand.generation_id),
            generation_id=errand.generation_id,
        )

    async def _retry(self) -> None:
        errand = self._errand
        await self._witness.insist(
            "retry",
            lambda: self._generations.retry(
                errand.user, errand.generation_id, new_generation_id=errand.other_id
            ),
            generation_id=errand.other_id,
            retry_of=errand.generation_id,
        )

    async def _delete(self) -> None:
        errand = self._errand
        await self._witness.insist(
            "delete",
            lambda: self._generations.delete(errand.user, [errand.generation_id]),
            generation_id=errand.generation_id,
        )

    async def _get(self, generation_id: str) -> Generation | ServiceError:
        return await self._witness.insist(
            "get",
            lambda: self._generations.get(self._errand.user, generation_id),
            generation_id=generation_id,
        )

    async def _wait(self, generation_id: str) -> None:
        """Looks until it has ended."""
        while not self._people.over.is_set():
            seen = await self._get(generation_id)
            if isinstance(seen, ServiceError) or seen.is_final:
                return
            await asyncio.sleep(LOOK_S)

    async def _meddle(self) -> None:
        """Has somebody else try to see and to cancel it."""
        generation_id, other = self._errand.generation_id, "user-of-nothing"
        stranger = Witness(self._people, other, self._errand.number)
        for call, ask in (
            ("get", lambda: self._generations.get(other, generation_id)),
            ("cancel", lambda: self._generations.cancel(other, generation_id)),
            ("delete", lambda: self._generations.delete(other, [generation_id])),
        ):
            await stranger.insist(call, ask, generation_id=generation_id, as_stranger=True)
