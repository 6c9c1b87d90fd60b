"""One machine of a cluster: PostgreSQL and the Patroni that sees to it, to be killed and frozen."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.postgresql import NOBODY

ASK_S_MAX = 3.0


@dataclass
class Node:
    """A machine, of which only the processes are real."""

    name: str
    folder: Path
    api_address: str
    postgresql_address: str
    command: list[str | Path]
    environment: Mapping[str, str]
    patroni: "subprocess.Popen[bytes] | None" = None
    frozen: list[int] = field(default_factory=list)
    """Processes that stand still, in the order in which they were stopped."""

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Starts Patroni, which starts PostgreSQL."""
        self.patroni = spawn(self.command, self.folder, self.log, self.environment)

    def kill(self) -> None:
        """Ends all processes as a machine's end would, without a word to anybody."""
        if self.patroni is not None:
            self.patroni.kill()  # First, or it would start the server again.
            for process in self._servers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self.patroni.wait()
            self.patroni = None

    def freeze(self) -> None:
        """Has all processes stand still, as if the machine hung."""
        assert self.patroni is not None
        for process in (self.patroni.pid, *_children(self.patroni.pid), *self._servers()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)
                self.frozen.append(process)

    def stop_following(self) -> None:
        """Has the process stand still that takes over what the primary writes."""
        for process in self._servers():
            with contextlib.suppress(OSError):
                if b"walreceiver" in Path(f"/proc/{process}/cmdline").read_bytes():
                    os.kill(process, signal.SIGSTOP)
                    self.frozen.append(process)

    def forget_unread(self) -> None:
        """Ends the process that stands still, and with it what was sent and not yet read."""
        for process in self.frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.frozen.clear()

    def thaw(self) -> None:
        """Has them go on as if nothing had been."""
        for process in reversed(self.frozen):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)
        self.frozen.clear()

    async def role(self) -> str:
        """Returns `primary`, `replica` and so on, or nothing if it does not say."""
        try:
            async with httpx.AsyncClient(timeout=ASK_S_MAX) as client:
                answer = await client.get(f"http://{self.api_address}/patroni")
                told = answer.json()
        except (httpx.HTTPError, ValueError):
            return ""
        return str(told.get("role", "")) if told.get("state") == "running" else ""

    def _servers(self) -> list[int]:
        """Returns the processes of PostgreSQL, the one that makes the others first."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            postmaster = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
            return [postmaster, *_children(postmaster)]
        return []


def spawn(
    command: list[str | Path], folder: Path, log: Path, environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """Starts a program as a user that PostgreSQL accepts; what it says is appended to its log."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            user=NOBODY if os.getuid() == 0 else None,
            group=NOBODY if os.getuid() == 0 else None,
            extra_groups=[] if os.getuid() == 0 else None,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _children(process: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [
            int(one) for one in Path(f"/proc/{process}/task/{process}/children").read_text().split()
        ]
    return []
