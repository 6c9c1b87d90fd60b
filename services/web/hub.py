"""Keeps one watch for each user, and tells all of that user's connections what it sees."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextvars import Context, copy_context
from datetime import UTC, datetime, timedelta

from structlog.contextvars import bind_contextvars, unbind_contextvars

from services.client.credits import Balance, CreditsClient
from services.client.generations import Generation, GenerationClient, Status
from services.runtime.errors import ServiceError, Unavailable
from services.runtime.telemetry import get_logger
from services.runtime.tracing import leave_trace
from services.web.event_ids import SKEW, parse_position
from services.web.mailbox import Mailbox
from services.web.subscription import PAUSE_S_MAX, PAUSE_S_MIN, Subscription, jittered_s

__all__ = ["Hub"]

BLIND_S = 30.0
"""Whoever was not read for so long is better served by a page that asks now and then."""
BLIND_LINGER_S = 60.0
"""Longer than a page waits between two tries, which else would find a watch that seems new."""
LINGER_S = 30.0
"""How long a user is watched on after the last connection: pages are reloaded."""
QUEUE_S = 5.0
"""Between two looks at the places of what waits, which change without their generations."""
LOOKS_AT_ONCE = 4
"""For all users together: what many wait for must not be what makes them wait."""
QUEUED_MAX = 1000
ETA_SLACK = timedelta(seconds=2)
"""An ETA that moved by less is not worth a message."""
PAGE_SIZE = 100

logger = get_logger(__name__)


class Hub:
    """The live events of the users of this process.

    However many connections a user has, their changes are read once. A connection first hears of
    every change that comes, and only then reads what is known already, both into one mailbox: what
    happens meanwhile is in at least one of them, and what is in both is known by its version.
    """

    def __init__(
        self,
        credits_client: CreditsClient,
        generations: GenerationClient,
        draining: asyncio.Event,
        *,
        users_max: int,
        linger_s: float = LINGER_S,
        queue_s: float = QUEUE_S,
        blind_s: float = BLIND_S,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._credits = credits_client
        self._generations = generations
        self._draining = draining
        self._linger_s = linger_s
        self._queue_s = queue_s
        self._blind_s = blind_s
        self._users_max = users_max
        self._clock = clock
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._watches: dict[str, _Watch] = {}
        self._leaving: asyncio.Task[None] | None = None

    @property
    def users(self) -> int:
        """How many users are watched."""
        return len(self._watches)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return sum(len(watch.subscriptions) for watch in self._watches.values())

    @contextlib.asynccontextmanager
    async def subscribe(
        self, user_id: str, last_event_id: str | None = None
    ) -> AsyncIterator[Subscription]:
        """Opens a connection of a user who has read up to an event; None for who has read nothing.

        Raises Unavailable when too many users are watched, and while this one cannot be.
        """
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._end_all())
        now = self._clock()
        position = None if last_event_id is None else parse_position(last_event_id, now)
        begins_anew = last_event_id is not None and position is None
        watch = self._watch(user_id)
        if watch.is_blind:
            self._forget_later(user_id, watch)
            raise Unavailable("NOT_WATCHED", "What happens cannot be read now; come back soon.")
        subscription = Subscription(
            Mailbox(position, now, begins_anew=begins_anew),
            lambda updated_after: self._generations.known(user_id, updated_after),
            None if position is None else position.updated_at,
            self._draining,
            self._clock,
            lambda is_read: watch.hear("known", is_read=is_read),
        )
        watch.join(subscription)
        try:
            yield subscription
        finally:
            watch.leave(subscription)
            if not watch.subscriptions:
                self._forget_later(user_id, watch)
            await subscription.close()

    async def close(self) -> None:
        """Ends all watches."""
        tasks = [task for item in list(self._watches.items()) for task in self._forget(*item)]
        if self._leaving is not None:
            self._leaving.cancel()
            tasks.append(self._leaving)
        if tasks:
            await asyncio.wait(tasks)

    def _watch(self, user_id: str) -> "_Watch":
        watch = self._watches.get(user_id)
        if watch is None:
            if len(self._watches) >= self._users_max:
                raise Unavailable("TOO_MANY_WATCHED", "Too many people are here; come back soon.")
            watch = self._new_watch(user_id)
            self._watches[user_id] = watch
        return watch

    def _new_watch(self, user_id: str) -> "_Watch":
        return _Watch(
            user_id,
            self._credits,
            self._generations,
            self._looks,
            self._queue_s,
            self._blind_s,
            self._clock() - SKEW,
        )

    def _forget_later(self, user_id: str, watch: "_Watch") -> None:
        linger_s = max(self._linger_s, BLIND_LINGER_S) if watch.is_blind else self._linger_s
        watch.forget_after(linger_s, lambda: self._forget(user_id, watch))

    def _forget(self, user_id: str, watch: "_Watch") -> "list[asyncio.Task[None]]":
        if self._watches.get(user_id) is watch:
            del self._watches[user_id]
        return watch.stop()

    async def _end_all(self) -> None:
        """Wakes all readers when the process leaves."""
        await self._draining.wait()
        for watch in self._watches.values():
            for subscription in watch.subscriptions:
                subscription.wake()


class _Watch:
    """What is watched for one user, and who hears of it."""

    def __init__(
        self,
        user_id: str,
        credits_client: CreditsClient,
        generations: GenerationClient,
        looks: asyncio.Semaphore,
        queue_s: float,
        blind_s: float,
        since: datetime,
    ) -> None:
        self.subscriptions: set[Subscription] = set()
        self.is_blind = False
        """Whether it was not read for so long that nobody should rely on it."""
        self._user_id = user_id
        self._credits = credits_client
        self._generations = generations
        self._looks = looks
        self._queue_s = queue_s
        self._blind_s = blind_s
        # What changes until the service has heard of us is sent by it afterwards.
        self._updated_at = since
        self._balance: Balance | None = None
        self._queued: dict[str, Generation] = {}
        self._has_queued = asyncio.Event()
        self._forgetting: asyncio.TimerHandle | None = None
        self._blinding: asyncio.TimerHandle | None = None
        self._is_stopped = False
        self._unread = {"generations", "balances"}
        self._context = _context_of(user_id)
        self._await_blindness()
        self._tasks = [
            asyncio.create_task(work, context=self._context.copy())
            for work in (
                self._keep_on(self._read_generations),
                self._keep_on(self._read_balances),
                self._look_at_queue(),
            )
        ]

    def join(self, subscription: Subscription) -> None:
        """Tells a connection of all changes from now on, and of the balance as it is."""
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None
        self.subscriptions.add(subscription)
        if self._balance is not None:
            subscription.mailbox.put_balance(self._balance)
            subscription.wake()

    def leave(self, subscription: Subscription) -> None:
        self.subscriptions.discard(subscription)

    def forget_after(self, linger_s: float, forget: Callable[[], object]) -> None:
        """Has the watch forgotten, unless a connection joins in time."""
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.get_running_loop().call_later(linger_s, forget)

    def stop(self) -> list[asyncio.Task[None]]:
        """Ends all reading, and returns what is still ending."""
        for timer in (self._forgetting, self._blinding):
            if timer is not None:
                timer.cancel()
        self._is_stopped = True
        for task in self._tasks:
            task.cancel()
        return self._tasks

    def hear(self, name: str, *, is_read: bool) -> None:
        """Notes whether one of the streams of services is read now, as far as it has to be."""
        if is_read:
            self._unread.discard(name)
        else:
            self._unread.add(name)
        self._await_blindness()

    def _await_blindness(self) -> None:
        if self._is_stopped:
            return
        if self._unread and self._blinding is None:
            loop = asyncio.get_running_loop()
            self._blinding = loop.call_later(self._blind_s, self._go_blind, context=self._context)
        elif not self._unread and self._blinding is not None:
            self._blinding.cancel()
            self._blinding, self.is_blind = None, False

    def _go_blind(self) -> None:
        logger.warning("a user cannot be watched", unread=sorted(self._unread))
        self.is_blind = True
        for subscription in self.subscriptions:
            subscription.end()
        # What is known, only connections read: after a while another one may try.
        self._blinding = asyncio.get_running_loop().call_later(
            self._blind_s, lambda: self.hear("known", is_read=True)
        )

    async def _keep_on(self, read: Callable[[], AsyncGenerator[None]]) -> None:
        """Reads a stream for ever, also when its client has given up."""
        pause_s = PAUSE_S_MIN
        while True:
            try:
                async with contextlib.aclosing(read()) as steps:
                    async for _ in steps:
                        pause_s = PAUSE_S_MIN
            except ServiceError as error:
                logger.warning("stream not read", reason=error.reason, message=error.message)
            except Exception:  # A defect here must not end what others read.
                logger.exception("stream not read")
                pause_s = PAUSE_S_MAX
            await asyncio.sleep(jittered_s(pause_s))
            pause_s = min(pause_s * 2, PAUSE_S_MAX)

    async def _read_generations(self) -> AsyncGenerator[None]:
        stream = self._generations.watch(
            self._user_id,
            updated_after=self._updated_at,
            heard=lambda is_read: self.hear("generations", is_read=is_read),
        )
        async with contextlib.aclosing(stream) as changes:
            async for generation in changes:
                self._updated_at = max(self._updated_at, generation.updated_at)
                self._note_queued(generation)
                self._tell(generation)
                yield

    async def _read_balances(self) -> AsyncGenerator[None]:
        stream = self._credits.watch_balance(
            self._user_id, heard=lambda is_read: self.hear("balances", is_read=is_read)
        )
        async with contextlib.aclosing(stream) as balances:
            async for balance in balances:
                if self._balance is None or balance.version > self._balance.version:
                    self._balance = balance
                    for subscription in self.subscriptions:
                        subscription.mailbox.put_balance(balance)
                        subscription.wake()
                yield

    async def _look_at_queue(self) -> None:
        """Reads the places of what waits, for as long as something does and somebody listens."""
        while True:
            await self._has_queued.wait()
            await asyncio.sleep(self._queue_s)
            if not self.subscriptions:
                continue
            try:
                async with self._looks:
                    await self._read_places()
            except ServiceError as error:
                logger.info("places not read", reason=error.reason)
            except Exception:  # A defect here must not end what others read.
                logger.exception("places not read")

    async def _read_places(self) -> None:
        stream = self._generations.history(self._user_id, PAGE_SIZE, status=Status.QUEUED)
        read = 0
        async with contextlib.aclosing(stream) as queued:
            async for generation in queued:
                known = self._queued.get(generation.generation_id)
                # What has moved on meanwhile is told by its change.
                if known is not None and _has_moved(known, generation):
                    self._queued[generation.generation_id] = generation
                    self._tell(generation)
                read += 1
                if read >= QUEUED_MAX:
                    return

    def _note_queued(self, generation: Generation) -> None:
        if generation.status is Status.QUEUED and generation.deleted_at is None:
            if generation.generation_id in self._queued or len(self._queued) < QUEUED_MAX:
                self._queued[generation.generation_id] = generation
                self._has_queued.set()
        elif self._queued.pop(generation.generation_id, None) is not None and not self._queued:
            self._has_queued.clear()

    def _tell(self, generation: Generation) -> None:
        for subscription in self.subscriptions:
            subscription.mailbox.put(generation)
            subscription.wake()


def _context_of(user_id: str) -> Context:
    """Returns what the log is told of a watch, which outlives the request that it began with."""
    context = copy_context()
    context.run(unbind_contextvars, "trace_id")
    context.run(leave_trace)
    context.run(bind_contextvars, user_id=user_id)
    return context


def _has_moved(known: Generation, generation: Generation) -> bool:
    """Tells whether place or ETA of what waits are others; a change tells of all else."""
    if generation.version != known.version:
        return False
    before, now = known.eta, generation.eta
    if generation.queue_position != known.queue_position or before is None or now is None:
        return generation != known
    return (
        abs(now.likely_at - before.likely_at) > ETA_SLACK
        or abs(now.latest_at - before.latest_at) > ETA_SLACK
    )
