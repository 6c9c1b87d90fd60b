"""Writes down what a run will do, what was done, and what clients were told: lines of JSON."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO


class Journal:
    """A file of what happened, in order; each line is there even if the run dies after it."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._begun_at = time.time()

    def note(self, kind: str, **values: Any) -> None:
        """Writes a line; `kind` says what it is about."""
        now = time.time()
        line = {"kind": kind, "at": now, "run_s": round(now - self._begun_at, 3)} | values
        self._file.write(json.dumps(line, default=str) + "\n")
        self._file.flush()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the lines of such a file; raises FileNotFoundError if there is none."""
    with path.open() as file:
        for line in file:
            yield json.loads(line)
