"""Makes videos in processes of their own, so that drawing never delays an answer."""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Self

from services.simulator.video import VideoOrder, make_video

__all__ = ["Renderer", "RendererBroken"]

WORKERS = max(1, (os.cpu_count() or 1) // 2)
TRIES = 3


class RendererBroken(Exception):
    """The worker processes died again and again over one video."""


class Renderer:
    """A pool of worker processes; they start with the first video, or with `warm_up`."""

    def __init__(self) -> None:
        # Nothing is ever written into this pipe: its end tells the workers to end.
        self._reader, self._writer = multiprocessing.Pipe(duplex=False)
        self._pool = self._new_pool()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._writer.close()
        self._reader.close()

    def warm_up(self) -> None:
        """Starts the workers now, so that the first video does not wait for them."""
        for _ in range(WORKERS):
            with _interrupts_blocked():
                self._pool.submit(_prepare)

    async def make(self, order: VideoOrder) -> None:
        """Makes a video; raises UnreadableImage, or RendererBroken if the workers keep dying."""
        for _ in range(TRIES):
            pool = self._pool
            try:
                with _interrupts_blocked():
                    made = asyncio.get_running_loop().run_in_executor(pool, make_video, order)
                await made
            except BrokenProcessPool:
                # The first of those that were waiting puts a new pool in place for all.
                if self._pool is pool:
                    self._pool = self._new_pool()
            else:
                return
        raise RendererBroken(f"the workers died {TRIES} times over one video")

    def _new_pool(self) -> ProcessPoolExecutor:
        # Spawned, since a forked child would share the event loop's sockets and locks.
        return ProcessPoolExecutor(
            WORKERS,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin_worker,
            initargs=(self._reader,),
        )


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Blocks SIGINT in this thread and, for ever, in the workers that it starts meanwhile.

    A Ctrl-C reaches the whole process group, and the parent decides when the workers end.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin_worker(reader: Connection) -> None:
    """Lets a worker live exactly as long as its renderer, also if that is killed."""
    threading.Thread(target=_end_with_pipe, args=(reader,), daemon=True).start()


def _end_with_pipe(reader: Connection) -> None:
    """Ends this process when the pipe ends; the pool itself would wait for ever."""
    wait([reader])
    os._exit(0)


def _prepare() -> None:
    """Does nothing; importing this module is the preparation."""
