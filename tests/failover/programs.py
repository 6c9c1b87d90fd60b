"""Finds the programs that a cluster is made of, or says in a line which are missing."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.postgresql import NOBODY

PATRONI = Path(__file__).parents[2] / ".patroni"
"""Where `make failover` installs Patroni, apart from what Reelworks itself needs."""
_VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
_ELSEWHERE = "/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin"
"""Where servers lie that people do not run."""


class Missing(Exception):
    """Programs are not there; the text says which, and whence they come."""


@dataclass(frozen=True)
class Programs:
    """Where everything is."""

    etcd: str
    haproxy: str
    patroni: Path
    """A folder of Python packages."""
    python: str
    """One that every user may run, unlike that of a virtual environment."""


def find_programs() -> Programs:
    """Returns where everything is; raises Missing."""
    etcd, haproxy, python = _find("etcd"), _find("haproxy"), _python()
    missing = [
        f"{name} ({whence})"
        for name, found, whence in (
            ("etcd", etcd, "Debian's etcd-server"),
            ("haproxy", haproxy, "Debian's haproxy"),
            ("patroni", (PATRONI / "patroni").is_dir(), "PyPI's, tests/failover/requirements.lock"),
            (_VERSION, python, "one that other users than root may run"),
        )
        if not found
    ]
    if missing:
        raise Missing(f"not installed: {', '.join(missing)}")
    assert etcd is not None
    assert haproxy is not None
    assert python is not None
    return Programs(etcd, haproxy, PATRONI, python)


def _python() -> str | None:
    """Returns a Python of this version that whoever runs PostgreSQL may run, too."""
    for python in (sys.executable, shutil.which(_VERSION, path=_ELSEWHERE)):
        if python is None:
            continue
        try:
            tried = subprocess.run(
                [python, "-c", ""],
                user=NOBODY if os.getuid() == 0 else None,
                cwd="/",
                env={},
                capture_output=True,
                check=False,
            )
        except OSError:
            continue
        if tried.returncode == 0:
            return python
    return None


def _find(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_ELSEWHERE}")
