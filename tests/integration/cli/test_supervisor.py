"""The supervisor keeps real processes running and leaves none behind."""

import asyncio
import contextlib
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from services.cli import supervisor
from services.cli.supervisor import ProcessFailed, ProcessPlan, Supervisor


def plan(script: str, is_ready: Callable[[], Awaitable[bool]] | None = None) -> ProcessPlan:
    command = (sys.executable, "-u", "-IS", "-c", textwrap.dedent(script))
    return ProcessPlan("worker", command, dict(os.environ), is_ready or at_once)


async def at_once() -> bool:
    return True


class Lines:
    """What the supervisor reported."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, name: str, line: str) -> None:
        self.lines.append(f"{name}: {line}")

    async def until(self, text: str, times: int = 1) -> None:
        await eventually(lambda: sum(text in line for line in self.lines) >= times)


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


def is_gone(process_id: int) -> bool:
    """Whether a process has ended, though nobody may have asked yet how."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "RESTART_PAUSE_S", 0.01)
    monkeypatch.setattr(supervisor, "STOP_S_MAX", 0.5)


async def test_a_process_that_is_killed_is_started_again() -> None:
    lines = Lines()
    ids: list[int] = []
    keeping = Supervisor(lines, lambda running: ids.extend(running.values()))

    async with keeping.running([[plan("print('up')\nimport time\ntime.sleep(60)")]]):
        await lines.until("up")
        os.kill(keeping.process_ids["worker"], signal.SIGKILL)
        await lines.until("worker: up", times=2)

    assert "worker: ended by SIGKILL; starts again" in lines.lines
    assert len(set(ids)) == 2
    assert keeping.process_ids == {}


async def test_a_process_that_dies_again_and_again_is_given_up_and_the_body_is_canceled() -> None:
    lines = Lines()
    canceled = asyncio.Event()

    async def keep_for_ever() -> None:
        async with Supervisor(lines).running([[plan("raise SystemExit(3)")]]):
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                canceled.set()
                raise

    with pytest.raises(ProcessFailed, match="worker ended 6 times within a minute"):
        await keep_for_ever()

    assert canceled.is_set()
    assert lines.lines.count("worker: ended with exit code 3; starts again") == 5


async def test_wrong_settings_are_not_tried_again() -> None:
    lines = Lines()

    with pytest.raises(ProcessFailed, match="worker cannot run with its settings"):
        async with Supervisor(lines).running(
            [[plan("print('error: X: must be set'); raise SystemExit(2)", never)]]
        ):
            pytest.fail("it was never ready")

    assert lines.lines == ["worker: error: X: must be set"]


async def never() -> bool:
    return False


async def test_the_next_stage_waits_until_the_one_before_is_ready(tmp_path: Path) -> None:
    lines = Lines()
    mark = tmp_path / "ready"

    async def is_ready() -> bool:
        return mark.exists()

    first = plan(
        f"import time; time.sleep(0.2); open({str(mark)!r}, 'w'); time.sleep(60)", is_ready
    )
    second = plan(f"import os, time; print(os.path.exists({str(mark)!r})); time.sleep(60)")
    second = ProcessPlan("second", second.command, second.environment, at_once)

    async with Supervisor(lines).running([[first], [second]]):
        await lines.until("second: True")


async def test_leaving_asks_first_and_kills_what_stays_with_all_that_it_started() -> None:
    lines = Lines()
    stubborn = """
        import os, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, lambda *_: print("asked"))
        child = subprocess.Popen([sys.executable, "-IS", "-c", "import time; time.sleep(60)"])
        print("child", child.pid)
        while True:
            time.sleep(1)
    """

    async with Supervisor(lines).running([[plan(stubborn)]]):
        await lines.until("child")

    assert "worker: asked" in lines.lines
    child = next(line for line in lines.lines if "child" in line)
    await eventually(lambda: is_gone(int(child.split()[-1])))


async def test_the_body_s_own_error_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with Supervisor(Lines()).running([[plan("import time; time.sleep(60)")]]):
            raise ZeroDivisionError


async def test_an_endless_line_is_left_out_and_those_after_it_are_read() -> None:
    lines = Lines()
    script = "print('x' * 1_000_000)\nprint('after')\nimport time\ntime.sleep(60)"

    async with Supervisor(lines).running([[plan(script)]]):
        await lines.until("after")

    assert all(len(line) < 100_000 for line in lines.lines)


async def test_processes_end_when_their_supervisor_is_killed() -> None:
    starter = """
        import asyncio, os, sys
        from services.cli.supervisor import ProcessPlan, Supervisor

        async def ready():
            return True

        async def main():
            script = "import os, time; print(os.getpid()); time.sleep(60)"
            command = (sys.executable, "-u", "-IS", "-c", script)
            plan = ProcessPlan("worker", command, dict(os.environ), ready)
            tell = lambda name, line: print(line, flush=True)
            async with Supervisor(tell).running([[plan]]):
                await asyncio.sleep(60)

        asyncio.run(main())
    """

    async with started(sys.executable, "-c", textwrap.dedent(starter)) as process:
        worker = int(await process.stdout.readline())
        process.kill()
        await eventually(lambda: is_gone(worker))


@contextlib.asynccontextmanager
async def started(*command: str) -> AsyncIterator[Any]:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
