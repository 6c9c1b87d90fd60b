"""The simulator as a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.simulator.harness import SMALL, WAIT_S

FREE_PORTS = ["--api-port", "0", "--delivery-port", "0", "--control-port", "0"]


class Process:
    """A simulator process with a blocking client."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "services.simulator", *FREE_PORTS, *options]
        self.popen = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.popen.stdout is not None
        self.line = self.popen.stdout.readline()
        self.addresses: dict[str, str] = json.loads(self.line)

    def call(self, path: str, body: object = None) -> Any:
        method = "GET" if body is None else "POST"
        address = f"{self.addresses['api']}/v1{path}"
        headers = {"Authorization": "Bearer r8_simulator"}
        response = httpx.request(method, address, json=body, headers=headers)
        return response.raise_for_status().json()

    def create(self, prompt: str) -> str:
        body = {"input": {"prompt": prompt, "frame_num": 17}}
        return str(self.call(f"/models/{SMALL}/predictions", body)["id"])

    def reaches(self, prediction_id: str, status: str) -> Any:
        return eventually(
            lambda: (
                answer
                if (answer := self.call(f"/predictions/{prediction_id}"))["status"] == status
                else None
            )
        )

    def stop(self) -> tuple[int, float, str]:
        """Returns exit code, seconds until the end and the log after SIGTERM."""
        begun = time.monotonic()
        self.popen.send_signal(signal.SIGTERM)
        _, log = self.popen.communicate(timeout=10)
        return self.popen.returncode, time.monotonic() - begun, log


def eventually(question: Callable[[], Any]) -> Any:
    give_up_at = time.monotonic() + WAIT_S
    while (answer := question()) is None:
        assert time.monotonic() < give_up_at, "it did not happen in time"
        time.sleep(0.02)
    return answer


@pytest.fixture
def run() -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def run_one(*options: str) -> Process:
        started.append(Process(*options))
        return started[-1]

    yield run_one
    for process in started:
        process.popen.kill()
        process.popen.communicate()


def test_it_tells_where_it_answers_and_stops_cleanly(run: Callable[..., Process]) -> None:
    process = run("--speed", "1000", "--log-format", "json")

    assert set(process.addresses) == {"api", "delivery", "control"}
    assert process.line.count("\n") == 1
    done = process.create("a lake")
    process.reaches(done, "succeeded")
    process.create("a hill [stuck]")
    code, seconds, log = process.stop()

    assert code == 0
    assert seconds < 3
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["event"] for line in lines if line.get("prediction") == done] == [
        "created",
        "ended",
    ]
    assert all(line["level"] == "info" for line in lines)


def test_a_restart_goes_on_where_it_was(run: Callable[..., Process], tmp_path: Path) -> None:
    data = ["--data", str(tmp_path)]
    first = run("--speed", "1000", *data)
    secret = first.call("/webhooks/default/secret")
    done = first.create("a lake")
    before = first.reaches(done, "succeeded")
    stuck = first.create("a hill [stuck]")
    first.reaches(stuck, "processing")
    assert first.stop()[0] == 0

    slow = run("--speed", "0.01", *data)
    waiting = slow.create("a moor")
    slow.popen.kill()
    slow.popen.wait()
    second = run("--speed", "1000", *data)

    after = second.call(f"/predictions/{done}")
    assert {**after, "urls": None, "output": None} == {**before, "urls": None, "output": None}
    assert httpx.get(after["output"]).content[4:8] == b"ftyp"
    assert second.reaches(stuck, "failed")["error"].startswith("Prediction timed out")
    second.reaches(waiting, "succeeded")
    assert second.call("/webhooks/default/secret") == secret
    ids = {done, stuck, waiting, second.create("a new one")}
    assert len(ids) == 4
    assert {one["id"] for one in second.call("/predictions")["results"]} == ids


def test_a_taken_port_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-m", "services.simulator", *FREE_PORTS, "--api-port", str(port)],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr == (
        f"error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    )


def test_no_worker_outlives_a_killed_simulator(run: Callable[..., Process], tmp_path: Path) -> None:
    process = run("--speed", "1000", "--data", str(tmp_path))
    process.reaches(process.create("a lake"), "succeeded")
    children = Path(f"/proc/{process.popen.pid}/task/{process.popen.pid}/children")
    workers = [int(child) for child in children.read_text().split()]
    assert workers

    process.popen.kill()
    process.popen.wait()

    eventually(lambda: True if not any(_runs(worker) for worker in workers) else None)


def _runs(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    # A zombie has ended; whoever adopted it has only not looked yet.
    return state != "Z"


def test_its_links_carry_the_name_that_others_know_it_by() -> None:
    process = Process("--public-host", "simulator.example")
    try:
        hosts = {httpx.URL(address).host for address in process.addresses.values()}
    finally:
        process.stop()

    assert hosts == {"simulator.example"}
