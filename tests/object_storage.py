"""A real object storage that speaks S3, for tests, from the program of a wheel."""

import contextlib
import json
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT_S = 60
ACCESS_KEY = "reelworks"
SECRET_KEY = "not a secret, but a key"


@dataclass(frozen=True)
class ObjectStorage:
    """A running server; its bucket is made when something is first put into it."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables that hold the keys."""
        return {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def url(self, folder: str, options: str = "") -> str:
        """Returns what a service is told to keep its files in a folder of their own."""
        return f"s3://reelworks/{folder}?endpoint={self.endpoint}{options}"


@contextlib.contextmanager
def running_object_storage() -> Iterator[ObjectStorage]:
    """Starts a server on free ports and stops it at the end."""
    with tempfile.TemporaryDirectory(prefix="reelworks-s3-") as folder:
        ports = _free_ports(8)
        process = subprocess.Popen(
            [Path(sysconfig.get_path("scripts")) / "weed", *_arguments(Path(folder), ports)],
            stdout=subprocess.DEVNULL,
            stderr=(Path(folder) / "log").open("wb"),
        )
        try:
            endpoint = f"http://127.0.0.1:{ports[-1]}"
            _wait(endpoint, process, Path(folder) / "log")
            yield ObjectStorage(endpoint)
        finally:
            process.kill()  # Asked to leave, it takes half a minute.
            process.wait()


def _arguments(folder: Path, ports: list[int]) -> list[str]:
    names = ("master.port", "volume.port", "filer.port")
    keys = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    identity = {"name": "tests", "credentials": keys, "actions": ["Admin", "Read", "Write", "List"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    arguments = ["-logtostderr=true", "server", f"-dir={folder}", "-ip=127.0.0.1"]
    arguments += ["-ip.bind=127.0.0.1", "-master.volumeSizeLimitMB=64", "-volume.max=20"]
    arguments += ["-master.volumePreallocate=false", "-s3", f"-s3.config={folder / 's3.json'}"]
    # It tells nobody that it runs, and opens no fixed port.
    arguments += ["-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    arguments += [f"-s3.port.grpc={ports[6]}", f"-s3.port={ports[7]}"]
    for name, port, grpc_port in zip(names, ports[:3], ports[3:6], strict=True):
        arguments += [f"-{name}={port}", f"-{name}.grpc={grpc_port}"]
    return arguments


def _wait(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Returns once the server answers."""
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            address = f"{endpoint}/healthz"
            urllib.request.urlopen(address, timeout=1).close()  # noqa: S310  Our own address.
        except (urllib.error.URLError, OSError):
            failed = process.poll() is not None or time.monotonic() > give_up_at
            assert not failed, f"the object storage did not start: {log.read_text()[-2000:]}"
            time.sleep(0.05)
        else:
            return


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(socket.socket()) for _ in range(number)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]
