"""Customers who use everything at once and put up with nothing but what a repetition mends."""

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from services.client.credits import CreditsClient
from services.client.generations import Generation, GenerationClient, Kind, new_generation_id
from services.runtime.errors import ServiceError
from tests.chaos.house import CREDITS_EACH

__all__ = ["PRICE", "PROMPT", "Customers"]

PROMPT = "a red fox running through fresh snow"
PRICE = 10
SPENT = 3
PAUSE_S = 0.02
"""Between two rounds of one who moves credits."""
WISH_PAUSE_S = 0.25
AGAIN_S = 0.1
TRIES_MAX = 100
STREAM_S_MAX = 75.0
"""A stream that says nothing for so long is dead."""
REPEATABLE = (503, 504)

T = TypeVar("T")


@dataclass
class Customers:
    """People and programs; each failure that they met is kept in words."""

    credits_: CreditsClient
    generations: GenerationClient
    doors: Sequence[str]
    """Addresses of the web service's replicas."""
    tokens: dict[str, str]
    """Of those who come over the web, by name."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when nobody shall begin anything more."""
    failures: list[str] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    """Calls by kind."""
    repeated: Counter[int] = field(default_factory=Counter)
    """Answers over REST that asked for a repetition."""
    made: dict[str, list[str]] = field(default_factory=dict)
    """Generations that were asked for, by user."""
    left: dict[str, int] = field(default_factory=dict)
    """What those who only move credits should have left, by user."""
    seen: dict[str, set[str]] = field(default_factory=dict)
    """Generations that were seen COMPLETED in a stream, by the stream's name."""
    seen_balance: dict[str, int] = field(default_factory=dict)

    def all_jobs(self) -> list[Coroutine[Any, Any, None]]:
        """Returns what they do until it is over."""
        return [
            *(self._spend(f"spender-{number}") for number in range(4)),
            *(self._wish(f"wisher-{number}") for number in range(2)),
            *(self._wish_by_web(name) for name in self.tokens),
        ]

    def all_watches(self) -> list[Coroutine[Any, Any, None]]:
        """Returns who only watches, for ever."""
        return [
            self._watch_balance("spender-0"),
            self._watch_generations("wisher-0"),
            *(self._watch_by_web(name) for name in self.tokens),
        ]

    async def _ask(self, kind: str, call: Coroutine[Any, Any, T]) -> T | None:
        """Waits for the answer to a call by gRPC, of which none may fail."""
        began = time.monotonic()
        try:
            answer = await call
        except ServiceError as error:
            after_s = time.monotonic() - began
            said = f"{error.status.name} {error.reason} {error.message}"
            name = getattr(call, "__qualname__", kind)
            self.failures.append(f"{name} after {after_s:.1f} s: {said}")
            return None
        self.answered[kind] += 1
        return answer

    async def _spend(self, user: str) -> None:
        """Reserves, then commits or refunds, again and again."""
        await self._ask("credits", self.credits_.open_account(user))
        self.left[user] = CREDITS_EACH
        for number in itertools.count():
            if self.over.is_set():
                return
            name = f"{user}-{number}"
            await self._ask("credits", self.credits_.reserve(user, name, SPENT))
            if number % 2:
                await self._ask("credits", self.credits_.refund(user, name))
            else:
                await self._ask("credits", self.credits_.commit(user, name))
                self.left[user] -= SPENT
            await self._ask("credits", self.credits_.get_balance(user))
            await asyncio.sleep(PAUSE_S)

    async def _wish(self, user: str) -> None:
        """Asks for videos by gRPC, and looks at them."""
        await self._ask("credits", self.credits_.open_account(user))
        mine = self.made.setdefault(user, [])
        while not self.over.is_set():
            generation_id = new_generation_id()
            mine.append(generation_id)
            create = self.generations.create(
                user, Kind.TEXT_TO_VIDEO, "t2v-14B", "480p", PROMPT, generation_id=generation_id
            )
            await self._ask("generation", create)
            await self._ask("generation", self.generations.get(user, generation_id))
            await self._ask("generation", self.generations.list(user))
            await asyncio.sleep(WISH_PAUSE_S)

    async def _wish_by_web(self, user: str) -> None:
        """Asks for videos over REST, and looks at them and at the balance."""
        mine = self.made.setdefault(user, [])
        body = {"prompt": PROMPT, "model": "t2v-14B", "resolution": "480p"}
        for number in itertools.count():
            if self.over.is_set():
                return
            made = await self._send(
                user,
                "POST",
                "/api/generation/text-to-video",
                json=body,
                headers={"Idempotency-Key": f"{user}-{number}"},
            )
            if made is not None:
                mine.append(made["generation_id"])
            await self._send(user, "GET", "/api/generations")
            await self._send(user, "GET", "/api/credits")
            await asyncio.sleep(WISH_PAUSE_S)

    async def _send(self, user: str, method: str, path: str, **request: Any) -> Any:
        """Returns what REST answers; who gets no connection, or 503, tries at the next door.

        So does who gets 504, which a machine with much else to do is good for.
        """
        headers = {"Authorization": f"Bearer {self.tokens[user]}"} | request.pop("headers", {})
        for number in range(TRIES_MAX):
            door = self.doors[number % len(self.doors)]
            try:
                async with (
                    httpx.AsyncClient(base_url=door, headers=headers, timeout=30.0) as client,
                    client.stream(method, path, **request) as answer,
                ):
                    # What was begun to be answered is answered to its end.
                    content = await self._read(answer, path)
            except httpx.TransportError:
                await asyncio.sleep(AGAIN_S)
                continue
            if answer.status_code in REPEATABLE:
                self.repeated[answer.status_code] += 1
                await asyncio.sleep(AGAIN_S)
                continue
            if not answer.is_success:
                self.failures.append(f"{method} {path}: {answer.status_code} {content!r}")
                return None
            self.answered["rest"] += 1
            return json.loads(content)
        self.failures.append(f"{method} {path}: nobody answers")
        return None

    async def _read(self, answer: httpx.Response, path: str) -> bytes:
        """Returns the body of an answer; one that is cut off is a failure."""
        try:
            return await answer.aread()
        except httpx.TransportError as error:
            self.failures.append(f"{path}: cut off after {answer.status_code}: {error!r}")
            raise

    async def _watch_balance(self, user: str) -> None:
        async with contextlib.aclosing(self.credits_.watch_balance(user)) as balances:
            async for balance in balances:
                self.seen_balance[user] = balance.available_credits

    async def _watch_generations(self, user: str) -> None:
        seen = self.seen.setdefault(user, set())
        async with contextlib.aclosing(self.generations.watch(user)) as generations:
            async for generation in generations:
                if generation.is_final:
                    seen.add(generation.generation_id)

    async def _watch_by_web(self, user: str) -> None:
        """Reads the event stream, and comes back at the other door when it ends."""
        seen = self.seen.setdefault(user, set())
        last_event_id = ""
        headers = {"Authorization": f"Bearer {self.tokens[user]}"}
        patience = httpx.Timeout(30.0, read=STREAM_S_MAX)
        for number in itertools.count():
            door = self.doors[number % len(self.doors)]
            resumed = headers | ({"Last-Event-ID": last_event_id} if last_event_id else {})
            with contextlib.suppress(httpx.TransportError):
                async with (
                    httpx.AsyncClient(base_url=door, headers=resumed, timeout=patience) as client,
                    client.stream("GET", "/api/events") as answer,
                ):
                    async for line in answer.aiter_lines():
                        name, _, value = line.partition(": ")
                        if name == "id":
                            last_event_id = value
                        elif name == "data" and '"COMPLETED"' in value:
                            seen.add(json.loads(value)["generation_id"])
            await asyncio.sleep(AGAIN_S)

    async def ends(self, user: str) -> list[Generation]:
        """Returns the generations of a user, all of them."""
        return [generation async for generation in self.generations.history(user)]
