"""Reads what processes cost, from what Linux counts of them (proc(5))."""

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Memory", "children_of", "cpu_s", "memory_of"]

_KIBIBYTES_PER_MEBIBYTE = 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process holds, in MiB."""

    resident: float
    """All its pages in memory."""
    proportional: float
    """The same, where a page that several processes share counts for each in part."""


def cpu_s(process: int) -> float:
    """Returns the processor time that a process has used, in user mode and for it in the kernel."""
    user, system = _stat(process)[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def memory_of(process: int) -> Memory:
    """Returns what a process holds now."""
    sizes = {}
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]:
        name, size = line.split()[:2]
        sizes[name] = int(size) / _KIBIBYTES_PER_MEBIBYTE
    return Memory(sizes["Rss:"], sizes["Pss:"])


def children_of(process: int) -> list[int]:
    """Returns the processes that a process has started and that still run."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int(_stat(int(folder.name))[1])
            except (FileNotFoundError, ProcessLookupError):  # It ended meanwhile.
                continue
            if parent == process:
                found.append(int(folder.name))
    return found


def _stat(process: int) -> list[str]:
    """Returns the fields of `stat` from the third on: the second may have spaces in it."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
