"""Each service runs from what its image holds: no other package, another user, nothing to write."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from services.cli.stack import make_keys
from services.runtime.probe import is_well
from tests.unit.deploy.distributions import closure

ROOT = Path(__file__).parents[3]
WAIT_S = 60
pytestmark = pytest.mark.timeout(200)
STRANGER = 10001
EXTRAS = {"cli": ""}
"""The extra of a target that is not called like it."""


@dataclass(frozen=True)
class Image:
    """The environment of one target, and a folder that its user may write to."""

    site: Path
    scratch: Path

    def start(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Starts Python with nothing but the environment's packages."""
        stranger = STRANGER if _may_change() else None
        return subprocess.Popen(
            # -S: the packages of this environment are not there; -P: nor is the working folder.
            [sys.executable, "-S", "-P", *arguments],
            env={
                "PYTHONPATH": str(self.site),
                "PYTHONDONTWRITEBYTECODE": "1",
                **(environment or {}),
            },
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=stranger,
            group=stranger,
            extra_groups=None if stranger is None else [],
        )

    def run(self, *arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, str]:
        process = self.start(*arguments, environment=environment)
        output, _ = process.communicate(timeout=WAIT_S)
        return process.returncode, output


@contextlib.contextmanager
def image(target: str) -> Iterator[Image]:
    """Gives what the stage `<target>-environment` makes, of links to what is installed here."""
    with tempfile.TemporaryDirectory(prefix="reelworks-image-") as folder:
        site, scratch = Path(folder, "site"), Path(folder, "scratch")
        site.mkdir()
        _link(site, closure(EXTRAS.get(target, target)).values())
        (site / "services").symlink_to(ROOT / "services")
        (site / "reelworks").symlink_to(ROOT / "gen" / "reelworks")
        scratch.mkdir()
        make_keys(scratch)
        Path(folder).chmod(0o755)
        if _may_change():
            for path in (scratch, *scratch.rglob("*")):
                os.chown(path, STRANGER, STRANGER)
        yield Image(site, scratch)


def _link(site: Path, distributions: Collection[Distribution]) -> None:
    """Fills a folder with what these distributions install, and no others."""
    owners = Counter(
        top for one in distributions for top in {file.parts[0] for file in one.files or ()}
    )
    for one in distributions:
        for file in one.files or ():
            top = file.parts[0]
            # A folder of several, such as `google`, may hold packages of others too.
            link = site / (file if owners[top] > 1 else top)
            if top != ".." and not link.is_symlink():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(str(one.locate_file(str(link.relative_to(site)))))


def _may_change() -> bool:
    """Tells whether another user can be tried, and gets as far as the packages."""
    folders = [Path(sys.executable).resolve(), ROOT, Path(sys.prefix)]
    return os.getuid() == 0 and all(
        parent.stat().st_mode & stat.S_IXOTH for one in folders for parent in (one, *one.parents)
    )


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        listeners = [held.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in listeners]


def _settings(target: str, scratch: Path, ports: list[int]) -> dict[str, str]:
    keys = scratch / "keys"
    common = {
        "REELWORKS_ENVIRONMENT": "test",
        "REELWORKS_ADDRESS": f"127.0.0.1:{ports[0]}",
        "REELWORKS_DRAIN_S": "0",
        "REELWORKS_GRACE_S": "1",
        "TMPDIR": str(scratch),
    }
    grpc = {
        "REELWORKS_HEALTH_ADDRESS": f"127.0.0.1:{ports[1]}",
        "REELWORKS_DATABASE_URL": f"sqlite:///{scratch}/data.sqlite3",
    }
    peers = {
        "REELWORKS_CREDITS_ADDRESS": "127.0.0.1:1",
        "REELWORKS_GENERATION_ADDRESS": "127.0.0.1:1",
        "REELWORKS_CALLBACK_KEYS_FILE": str(keys / "callback_keys"),
    }
    return (
        common
        | {
            "credits": grpc,
            "generation": grpc
            | peers
            | {
                "REELWORKS_STORAGE_URL": (scratch / "media").as_uri(),
                "REPLICATE_API_TOKEN": "r8_none",
                "REPLICATE_BASE_URL": "http://127.0.0.1:1",
            },
            "webhook": grpc
            | peers
            | {
                "REELWORKS_HTTP_ADDRESS": f"127.0.0.1:{ports[2]}",
                "REPLICATE_WEBHOOK_SECRET": "whsec_" + "A" * 43 + "=",
            },
            "web": peers
            | {
                "REELWORKS_SESSION_KEYS_FILE": str(keys / "session_keys"),
                "REELWORKS_DEVELOPMENT_KEY_FILE": str(scratch / "development_key"),
            },
        }[target]
    )


def _wait_until_well(process: subprocess.Popen[str], target: str) -> None:
    limit = time.monotonic() + WAIT_S
    while not is_well(target):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < limit, f"{target} is not well after {WAIT_S} s"


@pytest.mark.parametrize("target", ["credits", "generation", "webhook", "web"])
def test_a_service_starts_and_leaves_with_nothing_but_its_image(target: str) -> None:
    ports = _free_ports(3)
    with image(target) as made:
        settings = _settings(target, made.scratch, ports)
        if target != "web":
            code, output = made.run("-m", f"services.{target}", "migrate", environment=settings)
            assert code == 0, output

        process = made.start("-m", f"services.{target}", environment=settings)
        try:
            well = (
                f"http://127.0.0.1:{ports[0]}/healthz/live"
                if target == "web"
                else f"127.0.0.1:{ports[1]}/ready"
            )
            _wait_until_well(process, well)
        finally:
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=WAIT_S)

        assert process.returncode == 0, output


def test_the_image_of_a_service_migrates_its_database() -> None:
    with image("webhook") as made:
        url = made.scratch / "url"
        url.write_text(f"sqlite:///{made.scratch}/inbox.sqlite3\n")
        url.chmod(0o444)
        code, output = made.run(
            *("-m", "services.cli", "migrate", "webhook", "--var", str(made.scratch / "var")),
            environment={"REELWORKS_WEBHOOK_DATABASE_URL_FILE": str(url)},
        )
        is_there = (made.scratch / "inbox.sqlite3").exists()

    assert (code, is_there) == (0, True), output


def test_the_command_line_needs_no_service_beside_it() -> None:
    with image("cli") as made:
        code, output = made.run("-m", "services.cli", "--help")
        made_certificates, certificates = made.run(
            "-m", "services.cli", "certs", "--folder", str(made.scratch / "certificates")
        )

    assert code == 0, output
    assert made_certificates == 0, certificates


def test_a_package_that_an_image_lacks_stops_the_service() -> None:
    with image("credits") as made:
        (made.site / "sqlalchemy").unlink()
        code, output = made.run("-m", "services.credits")

    assert code == 1
    assert "No module named 'sqlalchemy'" in output
