"""Runs processes: waits until they are ready, starts again those that die, stops all together."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from services.cli import leash

__all__ = ["ProcessFailed", "ProcessPlan", "Supervisor"]

READY_S_MAX = 30.0
PROBE_PAUSE_S = 0.05
RESTART_PAUSE_S = 1.0
RESTARTS_MAX = 5
RESTARTS_WITHIN_S = 60.0
STOP_S_MAX = 4.0
"""How long a process may take to leave; one that takes longer is killed."""
DRAIN_S_MAX = 0.5
LINE_BYTES_MAX = 64 * 1024
WRONG_SETTINGS = 2
"""The exit code of a service that cannot run with its settings: starting it again is no use."""

ADVICE = "its lines above say why"


class ProcessFailed(Exception):
    """A process does not start, or dies again and again."""


@dataclass(frozen=True, slots=True)
class ProcessPlan:
    """A process to be kept running."""

    name: str
    """What to call it."""
    command: tuple[str, ...]
    """The program's whole path and its arguments."""
    environment: Mapping[str, str]
    """All of its environment."""
    is_ready: Callable[[], Awaitable[bool]]
    """Tells whether it does its work; asked again and again while it starts."""


class Supervisor:
    """Keeps processes running.

    `report` is given the name of a process and each line that it writes, or that there is to say
    about it. `changed` is given the ids of all processes by name, whenever one begins or ends.
    """

    def __init__(
        self,
        report: Callable[[str, str], None],
        changed: Callable[[Mapping[str, int]], None] = lambda _: None,
    ) -> None:
        self._report = report
        self._changed = changed
        self._processes: dict[str, Process] = {}

    @contextlib.asynccontextmanager
    async def running(self, stages: Sequence[Sequence[ProcessPlan]]) -> AsyncIterator[None]:
        """Runs processes around the body, which begins when all are ready.

        Those of a stage start when those before are ready. Raises ProcessFailed, and cancels the
        body, if one cannot be kept running. Leaving stops all, killing what does not leave in time.
        """
        try:
            async with asyncio.TaskGroup() as group:
                keepers = []
                try:
                    for stage in stages:
                        keepers += [group.create_task(self._keep(plan)) for plan in stage]
                        await asyncio.gather(*(_wait_until_ready(plan) for plan in stage))
                    yield
                finally:
                    for keeper in keepers:
                        keeper.cancel()
        except BaseExceptionGroup as errors:
            # The body's own error, or that of the first process that failed.
            raise errors.exceptions[0] from None

    @property
    def process_ids(self) -> dict[str, int]:
        """The ids of the processes that run, by name."""
        return {name: process.pid for name, process in self._processes.items()}

    def kill(self) -> None:
        """Kills all processes at once, and what they have started."""
        for process in self._processes.values():
            _kill_group(process)

    async def _keep(self, plan: ProcessPlan) -> None:
        """Starts a process again whenever it ends, until that happens too often."""
        ends: deque[float] = deque(maxlen=RESTARTS_MAX + 1)
        while True:
            code = await self._run_once(plan)
            if code == WRONG_SETTINGS:
                raise ProcessFailed(
                    f"{plan.name} cannot run with its settings; its lines above say why"
                )
            ends.append(time.monotonic())
            if len(ends) == ends.maxlen and ends[-1] - ends[0] < RESTARTS_WITHIN_S:
                raise ProcessFailed(
                    f"{plan.name} ended {len(ends)} times within a minute; its lines above say why"
                )
            self._report(plan.name, f"ended {_describe(code)}; starts again")
            await asyncio.sleep(RESTART_PAUSE_S)

    async def _run_once(self, plan: ProcessPlan) -> int:
        """Runs a process to its end and returns its exit code; stops it when canceled."""
        tied = (sys.executable, "-IS", leash.__file__, str(os.getpid()), *plan.command)
        # A session of its own: Ctrl-C reaches the supervisor only, and what the process starts can
        # be killed together with it.
        process = await asyncio.create_subprocess_exec(
            *tied,
            env=plan.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            limit=LINE_BYTES_MAX,
            start_new_session=True,
        )
        self._processes[plan.name] = process
        self._changed(self.process_ids)
        lines = asyncio.create_task(self._read_lines(plan.name, process))
        try:
            return await process.wait()
        finally:
            await _stop(process)
            # Nobody is left who could write, but what was written may wait to be read.
            await asyncio.wait([lines], timeout=DRAIN_S_MAX)
            lines.cancel()
            del self._processes[plan.name]
            self._changed(self.process_ids)

    async def _read_lines(self, name: str, process: Process) -> None:
        if process.stdout is None:
            raise AssertionError("the process was started with a pipe")
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:
                self._report(name, f"(more than {LINE_BYTES_MAX} bytes without a line break)")
                continue
            if not line:
                return
            self._report(name, line.decode(errors="replace").rstrip())


async def _wait_until_ready(plan: ProcessPlan) -> None:
    try:
        async with asyncio.timeout(READY_S_MAX):
            while not await plan.is_ready():  # noqa: ASYNC110  Another process decides.
                await asyncio.sleep(PROBE_PAUSE_S)
    except TimeoutError:
        raise ProcessFailed(f"{plan.name} was not ready within {READY_S_MAX:.0f} s") from None


async def _stop(process: Process) -> None:
    """Asks a process to leave if it runs, and kills it and its children if it stays."""
    try:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            async with asyncio.timeout(STOP_S_MAX):
                await process.wait()
    except TimeoutError:
        pass
    finally:
        _kill_group(process)
    await process.wait()


def _kill_group(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _describe(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    return f"by {signal.Signals(-code).name}"
