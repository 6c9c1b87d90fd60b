"""Processes of services that a test starts, kills, stops and waits for."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

START_S_MAX = 60.0
WAIT_S = 0.02


@dataclass
class Process:
    """A process that was started."""

    name: str
    log: Path
    process_id: int = 0
    code: int | None = None
    """As `subprocess` has it: the negative signal that killed it; None while it runs."""
    ended_at: float | None = None
    """When it was found to have ended, in seconds since the epoch."""
    started: threading.Event = field(default_factory=threading.Event)

    @property
    def is_stopped(self) -> bool:
        """Whether it stands still after SIGSTOP."""
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{self.process_id}/stat").read_text()
            return stat.rpartition(")")[2].split()[0] in "Tt"
        return False

    def send(self, number: signal.Signals) -> None:
        if self.code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process_id, number)

    def kill(self) -> None:
        """Kills it and returns when it is gone."""
        self.send(signal.SIGKILL)
        self.wait()

    def wait(self, limit_s: float = START_S_MAX) -> int:
        ends_at = time.monotonic() + limit_s
        while self.code is None:
            assert time.monotonic() < ends_at, f"{self.name} did not end"
            time.sleep(WAIT_S)
        return self.code


class Nursery:
    """Starts processes of services, each within a moment."""

    def __init__(self, program: "subprocess.Popen[str]") -> None:
        self._program = program
        self._processes: dict[str, Process] = {}
        self._alive: dict[int, Process] = {}
        self._numbers = itertools.count(1)
        threading.Thread(target=self._listen, daemon=True).start()

    def start(
        self, module: str, environment: Mapping[str, str], folder: Path, name: str = ""
    ) -> Process:
        """Starts the `main` of a module; its log is appended to a file of that name."""
        assert self._program.stdin is not None
        number = next(self._numbers)
        name = name or module.rpartition(".")[2]
        process = Process(name, folder / f"{name}.log")
        self._processes[str(number)] = process
        wanted = {
            "name": str(number),
            "module": module,
            "environment": dict(environment),
            "arguments": [],
            "log": str(process.log),
            "output": str(folder / f"{name}.out"),
        }
        self._program.stdin.write(json.dumps(wanted) + "\n")
        self._program.stdin.flush()
        assert process.started.wait(START_S_MAX), f"{name} was not started"
        return process

    def _listen(self) -> None:
        assert self._program.stdout is not None
        for line in self._program.stdout:
            message = json.loads(line)
            if "started" in message:
                process = self._processes.pop(message["name"])
                process.process_id = message["started"]
                self._alive[process.process_id] = process
                process.started.set()
            else:
                ended = self._alive.pop(message["ended"])
                ended.ended_at = time.time()
                ended.code = message["code"]


@contextlib.contextmanager
def opened_nursery() -> Iterator[Nursery]:
    """A nursery; all its processes are killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.nursery"],
        env=os.environ | {"GRPC_ENABLE_FORK_SUPPORT": "0", "GRPC_VERBOSITY": "ERROR"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        try:
            yield Nursery(program)
        finally:
            assert program.stdin is not None
            program.stdin.close()
            try:
                program.wait(START_S_MAX)
            except subprocess.TimeoutExpired:
                program.kill()
