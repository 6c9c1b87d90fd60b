"""A judge of images that takes a minute, and the processes in which it was begun."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.generation import judging

__all__ = ["is_alive", "judge_is_stuck"]

STUCK = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(60)"


def judge_is_stuck(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """Lets every image take a minute; returns what says which processes were begun."""
    file = folder / "begun"
    monkeypatch.setattr(judging, "_COMMAND", (sys.executable, "-c", STUCK, str(file)))
    return lambda: [int(line) for line in file.read_text().split()] if file.exists() else []


def is_alive(process: int) -> bool:
    """Tells whether a process is there, even if only to be waited for."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
