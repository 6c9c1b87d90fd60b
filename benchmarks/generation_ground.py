"""What benchmarks of the generation service stand on: databases and processes."""

import contextlib
import os
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.process_costs import children_of
from services.cli.stack import FREE_PORTS, Stack, choose_ports, make_keys, module_command
from services.cli.supervisor import ProcessPlan
from services.client.health import is_serving
from services.runtime.migrations import migrate
from tests.postgresql import PostgresqlServer, running_postgresql

__all__ = [
    "DATABASES",
    "Databases",
    "generation_plan",
    "limitless",
    "new_stack",
    "opened_databases",
]

DATABASES = ("SQLite", "PostgreSQL")
LIMITLESS = "1000000"


@dataclass(frozen=True)
class Databases:
    """Makes databases of one kind, in `folder` or by a server; they survive a loss of power."""

    folder: Path
    server: PostgresqlServer | None

    def make(self, service: str, name: str) -> str:
        """Returns the URL of a new, migrated database; no event loop may run in this thread."""
        if self.server is None:
            url = f"sqlite:///{self.folder / name}.sqlite3"
        else:
            url = self.server.url(self.server.create_database())
        migrate(service, url)
        return url

    def servers(self, url: str) -> Collection[int]:
        """Returns the processes of the server that work on a database now; SQLite has none."""
        if self.server is None:
            return ()
        postmaster = int((self.server.data / "postmaster.pid").read_text().split()[0])
        name = url.rpartition("/")[2]
        return [child for child in children_of(postmaster) if name in _command_line(child)]


@contextlib.contextmanager
def opened_databases(kind: str) -> Iterator[Databases]:
    """Gives what makes databases of one of DATABASES."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="reelworks-benchmark-"))
        is_sqlite = kind == DATABASES[0]
        server = None if is_sqlite else stack.enter_context(running_postgresql(fsync=True))
        yield Databases(Path(folder), server)


def new_stack(var: Path, speed: float, **settings: str) -> Stack:
    """Returns processes that write their files to `var`, with settings in place of the defaults.

    The simulator is so many times faster than the provider; it copies its videos, and its limits
    are never reached.
    """
    given = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("REPLICATE", "REELWORKS"))
    }
    given |= {"REELWORKS_LOG_LEVEL": "ERROR"}
    given |= {f"REELWORKS_{name}": value for name, value in settings.items()}
    make_keys(var)
    return Stack(var, choose_ports(FREE_PORTS, ()), speed, given)


def limitless(simulator: ProcessPlan) -> ProcessPlan:
    """Returns the simulator as one that only copies videos and never refuses a call."""
    limits = [f"--switch={name}_per_minute={LIMITLESS}" for name in ("creates", "calls")]
    return replace(simulator, command=(*simulator.command, "--video=stamp", *limits))


def generation_plan(
    stack: Stack,
    name: str,
    address: str,
    *,
    module: str = "services.generation",
    **settings: str,
) -> ProcessPlan:
    """Returns one more generation service beside those of `stack`, or what stands in for it."""
    environment = stack.settings("generation") | {"REELWORKS_ADDRESS": address}
    environment |= {f"REELWORKS_{name}": value for name, value in settings.items()}
    return ProcessPlan(name, module_command(module), environment, lambda: is_serving(address))


def _command_line(process: int) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/cmdline").read_text()
    return ""
