"""What is done to a cluster while people use it: its primary dies, hands over and hangs."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.chaos.stack.journal import Journal
from tests.failover.cluster import Cluster, NotInTime
from tests.failover.judging import Event
from tests.failover.probing import Probes

CALM_S = 6.0
"""Between two events, in which all work as usual."""
ANSWERED_S_MAX = 90.0
UNCONFIRMED_S = 1.0
FROZEN_S = 35.0
"""Longer than it takes until another node is the primary."""


@dataclass
class Director:
    """Does one thing after the other, and waits until the cluster is whole again."""

    cluster: Cluster
    probes: Probes
    journal: Journal
    events: list[Event] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Does everything; notes what the cluster did not recover from, and ends there."""
        try:
            await asyncio.sleep(CALM_S)
            await self._suffer("primary killed", self._kill)
            await self._suffer("switchover", self._switch_over)
            await self._suffer("primary frozen", self._freeze)
        except (NotInTime, TimeoutError) as error:
            self.failures.append(str(error) or "nobody was answered any more")

    async def lose(self) -> None:
        """Has a primary die that has acknowledged alone: the judge must find what is lost."""
        try:
            await asyncio.sleep(CALM_S)
            await self.cluster.acknowledge_alone()
            primary, moment = await self.cluster.primary(), time.time()
            for node in self.cluster.nodes:
                if node is not primary:
                    node.stop_following()
            await asyncio.sleep(UNCONFIRMED_S)
            await asyncio.to_thread(primary.kill)
            for node in self.cluster.nodes:
                node.forget_unread()
            killed_at = time.time()
            async with asyncio.timeout(ANSWERED_S_MAX):
                await self.probes.answered_after(killed_at)
            self.events.append(Event("primary killed", moment, time.time()))
        except (NotInTime, TimeoutError) as error:
            self.failures.append(str(error) or "nobody was answered any more")

    async def _suffer(self, name: str, do: Callable[[], Awaitable[None]]) -> None:
        self.journal.note("event", name=name, members=await self.cluster.situation())
        begun_at = time.time()
        await do()
        await self.cluster.whole()
        async with asyncio.timeout(ANSWERED_S_MAX):
            await self.probes.answered_after(time.time())
        self.events.append(Event(name, begun_at, time.time()))
        self.journal.note("whole", name=name, members=await self.cluster.situation())
        await asyncio.sleep(CALM_S)

    async def _kill(self) -> None:
        primary, moment = await self.cluster.primary(), time.time()
        await asyncio.to_thread(primary.kill)
        async with asyncio.timeout(ANSWERED_S_MAX):
            await self.probes.answered_after(moment)
        primary.start()

    async def _switch_over(self) -> None:
        await self.cluster.switch_over()

    async def _freeze(self) -> None:
        primary, moment = await self.cluster.primary(), time.time()
        primary.freeze()
        try:
            async with asyncio.timeout(ANSWERED_S_MAX):
                await self.probes.answered_after(moment)
            await asyncio.sleep(max(0.0, moment + FROZEN_S - time.time()))
        finally:
            primary.thaw()
