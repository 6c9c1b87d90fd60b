"""Asks a process on this machine whether it is well: `python -m services.runtime.probe TARGET`.

For whoever can only run a command, as compose does. TARGET is `host:port/name` for a state of a
gRPC health port, as `127.0.0.1:50059/ready`, or an http address. The exit code is 0 if it is well.
"""

import http.client
import sys
from typing import Any
from urllib.parse import urlsplit

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.runtime.settings import exit_with

__all__ = ["is_well", "main"]

LIMIT_S = 3.0
UNWELL = 1


def is_well(target: str) -> bool:
    """Tells whether the process behind `target` says that it is well, within 3 s."""
    if target.startswith("http://"):
        return _answers_well(target)
    address, _, name = target.partition("/")
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # Its stubs leave the methods out.
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=LIMIT_S)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def main() -> None:
    """Ends with exit code 0 if the process is well, else with 1."""
    match sys.argv[1:]:
        case [target]:
            sys.exit(0 if is_well(target) else UNWELL)
        case _:
            exit_with("usage: python -m services.runtime.probe TARGET")


def _answers_well(url: str) -> bool:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=LIMIT_S)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    main()
