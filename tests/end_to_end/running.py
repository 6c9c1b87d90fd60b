"""A whole stack as a user has it: `reelworks up` and the other commands, as processes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.cli.up_file import UpFile, read_up_file

__all__ = ["HURRIED", "Running", "environment", "eventually", "reelworks", "start"]

# Limits for a machine on which much else runs; an idle one needs a tenth.
READY_S_MAX = 120.0
COMMAND_S_MAX = 120.0
FREE_PORTS = {
    f"REELWORKS_{name}_PORT": "0"
    for name in (
        *("WEB", "CREDITS", "GENERATION", "WEBHOOK", "WEBHOOK_GRPC", "WEBHOOK_METRICS"),
        "SIMULATOR",
    )
}


HURRIED = {
    f"REELWORKS_{name}_PER_MINUTE": "100000" for name in ("SIGN_INS", "CREATES", "UPLOADS", "CALLS")
}
"""Tests all come from one address, and are quicker than people."""


def environment(**changes: str) -> dict[str, str]:
    """The environment of a command, without what the one who runs the tests has set."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("REELWORKS_", "REPLICATE_"))
    }
    return kept | {"REELWORKS_PROFILE": "fast"} | changes


def reelworks(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "services.cli", *arguments]


def eventually(holds: Callable[[], bool], limit_s: float = 60.0) -> None:
    """Waits until something is so; fails when it is not so in time."""
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@dataclass
class Running:
    """A stack that is up."""

    var: Path
    process: subprocess.Popen[str]
    log: Path

    @property
    def up_file(self) -> UpFile:
        content = read_up_file(self.var)
        assert content is not None, "the stack is not up"
        return content

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs a command against this stack, in its folder."""
        return subprocess.run(
            reelworks(*arguments),
            env=environment(REELWORKS_VAR=str(self.var), **variables),
            cwd=self.var,
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """Runs a command that must succeed and returns its one JSON document."""
        result = self.run(*arguments, "--json")
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    def predictions(self, prompt: str) -> list[dict[str, Any]]:
        """What the simulator was really asked to make with a prompt, by its own account."""
        address = f"{self.up_file.addresses['control']}/control/state"
        with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310  Its own.
            state = json.load(answer)
        return [p for p in state["predictions"] if p["input"].get("prompt") == prompt]

    def kill(self, name: str) -> int:
        """Kills a process as the kernel would; returns its id."""
        process_id = self.up_file.processes[name]
        os.kill(process_id, signal.SIGKILL)
        return process_id


@contextlib.contextmanager
def start(var: Path, *arguments: str, **variables: str) -> Iterator[Running]:
    """Runs `reelworks up` on free ports, ready for the body; a failure shows its log."""
    log = var.parent / f"{var.name}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            reelworks("up", "--var", str(var), "--speed", "100", *arguments),
            env=environment(**FREE_PORTS, **variables),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        eventually(lambda: (var / "up.json").exists() or process.poll() is not None, READY_S_MAX)
        assert process.poll() is None, log.read_text()
        yield Running(var, process, log)
    except BaseException:
        sys.stdout.write(log.read_text())
        raise
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
