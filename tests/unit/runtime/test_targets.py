"""Which gRPC targets lead nowhere but to this machine."""

import socket
from typing import Any

import pytest

from services.runtime import settings
from services.runtime.settings import is_loopback, is_loopback_target


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:50051",
        "127.8.9.10:50051",
        "[::1]:50051",
        "localhost:50051",
        "dns:localhost:50051",
        "dns:///localhost:50051",
        "ipv4:127.0.0.1:50051",
        "ipv4:127.0.0.1:50051,127.0.0.2:50051",
        "ipv6:[::1]:50051",
        "unix:/run/credits",
        "unix:///run/credits",
        "unix-abstract:credits",
    ],
)
def test_this_machine(target: str) -> None:
    assert is_loopback_target(target)


@pytest.mark.parametrize(
    "target",
    [
        "",
        ":50051",
        "credits:50051",
        "dns:///credits:50051",
        "dns:///credits.reelworks.svc.cluster.local:50051",
        "dns://10.0.0.53/localhost:50051",  # A name server of somebody's choice.
        "dns:///",
        "ipv4:127.0.0.1:50051,10.0.0.1:50051",
        "ipv4:10.0.0.1:50051",
        "ipv4:",
        "127.0.0.1:50051,10.0.0.1:50051",
        "0.0.0.0:50051",
        "[::]:50051",
        "[::ffff:10.0.0.1]:50051",
        "127.0.0.1.example:50051",
        "127.example:50051",
        "localhost.example:50051",
        "localhost%2eexample:50051",
        "xds:///credits",
        "vsock:2:50051",
        "passthrough:///10.0.0.1:50051",
        "https://127.0.0.1:50051",
    ],
)
def test_elsewhere(target: str) -> None:
    assert not is_loopback_target(target)


@pytest.mark.parametrize(
    ("resolved", "is_own"),
    [
        (["127.0.0.1"], True),
        (["127.0.0.1", "::1"], True),
        (["10.0.0.1"], False),
        (["::1", "10.0.0.1"], False),
        (None, False),
    ],
)
def test_localhost_is_believed_only_where_it_leads_here(
    resolved: list[str] | None, is_own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*_arguments: Any, **_options: Any) -> list[Any]:
        if resolved is None:
            raise OSError
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in resolved]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    settings._is_loopback_host.cache_clear()

    try:
        assert is_loopback("localhost:50051") is is_own
        assert is_loopback_target("dns:///localhost:50051") is is_own
    finally:
        settings._is_loopback_host.cache_clear()
