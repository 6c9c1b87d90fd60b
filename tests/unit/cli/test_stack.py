"""Each process is told where the others are, and nothing that is not its own."""

import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from services.cli.stack import (
    FREE_PORTS,
    Ports,
    PortTaken,
    Stack,
    choose_ports,
    database_url,
    make_keys,
)
from services.runtime.callback import parse_keys

PORTS = Ports(*range(1001, 1009))


def stack(**environment: str) -> Stack:
    return Stack(Path("/data"), PORTS, 10, environment)


def names(of: Stack) -> list[list[str]]:
    return [[plan.name for plan in stage] for stage in of.stages()]


def test_without_a_token_the_simulator_plays_replicate() -> None:
    simulated = stack()

    assert names(simulated) == [["simulator"], ["credits", "generation", "webhook"]]
    settings = simulated.settings("generation")
    assert settings["REPLICATE_BASE_URL"] == "http://127.0.0.1:1004"
    assert settings["REELWORKS_DELIVERY_ORIGINS"] == "http://127.0.0.1:1005"
    assert settings["REELWORKS_WEBHOOK_PUBLIC_URL"] == (
        "http://127.0.0.1:1003/api/webhooks/replicate"
    )
    assert settings["REELWORKS_CREDITS_ADDRESS"] == "127.0.0.1:1001"
    assert settings["REELWORKS_POLL_INTERVAL_S"] == "0.5"
    assert settings["REELWORKS_PROVIDER_SPEED"] == "10"


def test_a_secret_of_the_real_replicate_is_not_used_for_the_simulator() -> None:
    settings = stack(REPLICATE_WEBHOOK_SECRET="whsec_real").settings("webhook")

    assert settings["REPLICATE_WEBHOOK_SECRET"] == ""


def test_with_a_token_the_real_replicate_works_and_no_simulator_runs() -> None:
    real = stack(REPLICATE_API_TOKEN="r8_real", REPLICATE_WEBHOOK_SECRET="whsec_real")

    assert names(real) == [["credits", "generation", "webhook"]]
    settings = real.settings("generation")
    assert settings["REPLICATE_API_TOKEN"] == "r8_real"
    assert settings["REPLICATE_WEBHOOK_SECRET"] == "whsec_real"
    assert "REPLICATE_BASE_URL" not in settings
    assert "REELWORKS_WEBHOOK_PUBLIC_URL" not in settings
    assert settings["REELWORKS_POLL_INTERVAL_S"] == "2.0"
    assert "REELWORKS_PROVIDER_SPEED" not in settings


def test_an_address_that_replicate_reaches_is_passed_on() -> None:
    address = "https://example.com/api/webhooks/replicate"

    settings = stack(REPLICATE_API_TOKEN="r8", REELWORKS_WEBHOOK_PUBLIC_URL=address)

    assert settings.settings("generation")["REELWORKS_WEBHOOK_PUBLIC_URL"] == address


def test_each_service_has_a_database_of_its_own() -> None:
    environment = {"REELWORKS_CREDITS_DATABASE_URL": "postgresql://host/credits"}

    assert database_url("credits", Path("/data"), environment) == "postgresql://host/credits"
    assert database_url("webhook", Path("/data"), environment) == "sqlite:////data/webhook.sqlite3"


def test_a_port_of_zero_becomes_a_free_one_and_no_two_are_the_same() -> None:
    chosen = choose_ports(FREE_PORTS, ())

    ports = [getattr(chosen, name) for name in Ports.__slots__]
    assert len(set(ports)) == len(ports)
    assert all(ports)


def test_a_taken_port_is_named_unless_nobody_needs_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        wanted = replace(FREE_PORTS, generation=port)

        with pytest.raises(PortTaken, match=f"port {port}, for generation, is taken") as raised:
            choose_ports(wanted, ("credits", "generation"))

        assert raised.value.name == "generation"
        assert choose_ports(wanted, ("credits",)).generation == port


def test_keys_are_made_once_for_this_user_only(tmp_path: Path) -> None:
    make_keys(tmp_path)
    file = tmp_path / "keys" / "callback_keys"
    first = file.read_text()

    make_keys(tmp_path)

    assert file.read_text() == first
    assert len(parse_keys(first)) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
