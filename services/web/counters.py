"""Where rates are counted: in the memory of this process, which stays small, or in Redis."""

import time
from typing import Any

from limits.aio.storage import MemoryStorage, RedisStorage

__all__ = ["Counters", "close_counters", "open_counters"]

KEYS_MAX = 100_000
"""In memory; the oldest are forgotten first, so a flood of addresses cannot fill it."""
REDIS_S_MAX = 0.2

Counters = MemoryStorage | RedisStorage


def open_counters(url: str) -> Counters:
    """Opens the counters at `url`: `memory://`, or `async+redis://…`; asks nothing of them yet.

    Raises ValueError if it is no such address.
    """
    if url.startswith("memory:"):
        return _Memory()
    options: dict[str, Any] = {"stream_timeout": REDIS_S_MAX, "connect_timeout": REDIS_S_MAX}
    return RedisStorage(url, **options)


async def close_counters(counters: Counters) -> None:
    """Ends the connections to Redis, if there are any."""
    if isinstance(counters, RedisStorage):
        bridge: Any = counters.bridge  # Its class does not say that it has a connection.
        bridge.get_connection().connection_pool.disconnect()


class _Memory(MemoryStorage):
    """The library's, but it looks for what expired at the oldest end only.

    The library's own looks at every key there is, at every count.
    """

    STORAGE_SCHEME = ["async+reelworks"]  # noqa: RUF012  As the library declares it.
    """The library's registry wants a name; it must not take the place of the library's own."""

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Counts, and forgets what is over; nothing here lets others run in between."""
        now = time.time()
        # All have the same window, so the order in which they came is that in which they end.
        while self.expirations:
            oldest = next(iter(self.expirations))
            if self.expirations[oldest] > now and len(self.expirations) < KEYS_MAX:
                break
            del self.expirations[oldest]
            self.storage.pop(oldest, None)
        self.expirations.setdefault(key, now + expiry)
        self.storage[key] += amount
        return self.storage[key]
