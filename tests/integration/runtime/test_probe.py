"""A command says by its exit code whether a process on this machine is well."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.runtime.probe import is_well

NOBODY = "127.0.0.1:1"


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz/ready" else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  The library's name.
        """Keeps quiet."""


@pytest.fixture
def http_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def grpc_server() -> Iterator[str]:
    servicer = health.HealthServicer()
    servicer.set("ready", health_pb2.HealthCheckResponse.SERVING)
    servicer.set("live", health_pb2.HealthCheckResponse.NOT_SERVING)
    server = grpc.server(ThreadPoolExecutor(2))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_an_http_address_is_well_if_it_answers_200(http_server: str) -> None:
    assert is_well(f"{http_server}/healthz/ready")
    assert not is_well(f"{http_server}/healthz/live")
    assert not is_well(f"http://{NOBODY}/healthz/ready")


def test_a_state_is_well_if_it_is_serving(grpc_server: str) -> None:
    assert is_well(f"{grpc_server}/ready")
    assert not is_well(f"{grpc_server}/live")
    assert not is_well(f"{grpc_server}/startup")
    assert not is_well(f"{NOBODY}/ready")


@pytest.mark.parametrize(
    ("arguments", "code"), [([f"http://{NOBODY}/"], 1), ([], 2), (["one", "two"], 2)]
)
def test_the_exit_code_tells(arguments: list[str], code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.runtime.probe", *arguments],
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == code
