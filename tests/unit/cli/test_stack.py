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
from services.credits.settings import CreditsSettings
from services.generation.settings import GenerationSettings
from services.runtime.callback import parse_keys
from services.runtime.settings import OrFile, Settings
from services.web.settings import WebSettings
from services.webhook.settings import WebhookSettings

PORTS = Ports(*range(1001, 1010))


def stack(**environment: str) -> Stack:
    return Stack(Path("/data"), PORTS, 10, environment)


def names(of: Stack) -> list[list[str]]:
    return [[plan.name for plan in stage] for stage in of.stages()]


def test_without_a_token_the_simulator_plays_replicate() -> None:
    simulated = stack()

    assert names(simulated) == [["simulator"], ["credits", "generation", "webhook"], ["web"]]
    settings = simulated.settings("generation")
    assert settings["REPLICATE_BASE_URL"] == "http://127.0.0.1:1004"
    assert settings["REELWORKS_DELIVERY_ORIGINS"] == "http://127.0.0.1:1005"
    assert settings["REELWORKS_WEBHOOK_PUBLIC_URL"] == (
        "http://127.0.0.1:1003/api/webhooks/replicate"
    )
    assert settings["REELWORKS_CREDITS_ADDRESS"] == "127.0.0.1:1001"
    assert settings["REELWORKS_POLL_INTERVAL_S"] == "0.5"
    assert settings["REELWORKS_PROVIDER_SPEED"] == "10"


def test_a_token_in_a_file_means_the_real_replicate_too() -> None:
    real = stack(REPLICATE_API_TOKEN_FILE="/run/secrets/token")

    assert not real.simulated
    assert real.settings("generation")["REPLICATE_API_TOKEN_FILE"] == "/run/secrets/token"
    assert "REPLICATE_API_TOKEN_FILE" not in real.settings("web")


def test_an_address_of_a_database_in_a_file_stays_there() -> None:
    settings = stack(REELWORKS_CREDITS_DATABASE_URL_FILE="/run/secrets/url").settings("credits")

    assert settings["REELWORKS_DATABASE_URL_FILE"] == "/run/secrets/url"
    assert "REELWORKS_DATABASE_URL" not in settings


def test_a_secret_of_the_real_replicate_is_not_used_for_the_simulator() -> None:
    settings = stack(REPLICATE_WEBHOOK_SECRET="whsec_real").settings("webhook")

    assert settings["REPLICATE_WEBHOOK_SECRET"] == ""


@pytest.mark.parametrize("service", ["web", "credits"])
def test_who_has_nothing_to_do_with_replicate_gets_no_secret_of_it(service: str) -> None:
    secrets = {
        "REPLICATE_API_TOKEN": "r8_real",
        "REPLICATE_WEBHOOK_SECRET": "whsec_real",
        "REELWORKS_WEBHOOK_SECRETS_FILE": "/run/secrets",
    }

    settings = stack(**secrets, PATH="/bin").settings(service)

    assert not secrets.keys() & settings.keys()
    assert settings["PATH"] == "/bin"
    assert "REPLICATE_API_TOKEN" not in stack().settings(service)


SETTINGS: dict[str, type[Settings]] = {
    "credits": CreditsSettings,
    "generation": GenerationSettings,
    "webhook": WebhookSettings,
    "web": WebSettings,
}


def secrets_of(settings: type[Settings]) -> set[str]:
    """Returns the variables with what only some processes should know, as the settings mark it."""
    return {
        field.validation_alias
        if isinstance(field.validation_alias, str)
        else f"REELWORKS_{name.upper()}"
        for name, field in settings.model_fields.items()
        if "SecretStr" in str(field.annotation)
        or any(isinstance(mark, OrFile) for mark in field.metadata)
    }


@pytest.mark.parametrize("suffix", ["", "_FILE"])
@pytest.mark.parametrize("service", [*SETTINGS, "simulator"])
def test_nobody_inherits_secrets_of_others(service: str, suffix: str) -> None:
    all_secrets = set().union(*map(secrets_of, SETTINGS.values()))
    own = secrets_of(SETTINGS[service]) if service in SETTINGS else set()
    given = {f"{name}{suffix}": "given" for name in all_secrets}
    databases = ("CREDITS", "GENERATION", "WEBHOOK")
    given |= {f"REELWORKS_{name}_DATABASE_URL{suffix}": f"of {name}" for name in databases}
    if service == "simulator":
        # It stands in for Replicate only without a token of Replicate's.
        del given[f"REPLICATE_API_TOKEN{suffix}"]
    of = stack(**given)

    plans = {plan.name: plan for stage in of.stages() for plan in stage}
    environment = plans[service].environment

    assert len(all_secrets) >= 7
    foreign = {f"{name}{suffix}" for name in all_secrets - own}
    assert not {name for name in foreign if environment.get(name)}
    assert {f"{name}{suffix}" for name in own} <= environment.keys()
    assert [value for value in environment.values() if value.startswith("of ")] == (
        [f"of {service.upper()}"] if service.upper() in databases else []
    )


def test_keys_of_object_storage_are_for_those_who_use_it() -> None:
    given = stack(AWS_SECRET_ACCESS_KEY="key")

    knowing = [name for name in SETTINGS if "AWS_SECRET_ACCESS_KEY" in given.settings(name)]

    assert knowing == ["generation", "web"]


def test_an_address_of_one_process_is_not_that_of_all() -> None:
    given = stack(REELWORKS_HEALTH_ADDRESS=":50059", REELWORKS_METRICS_ADDRESS=":9464")

    for service in SETTINGS:
        settings = given.settings(service)
        assert "REELWORKS_HEALTH_ADDRESS" not in settings
        assert settings.get("REELWORKS_METRICS_ADDRESS") != ":9464"


def test_with_a_token_the_real_replicate_works_and_no_simulator_runs() -> None:
    real = stack(REPLICATE_API_TOKEN="r8_real", REPLICATE_WEBHOOK_SECRET="whsec_real")

    assert names(real) == [["credits", "generation", "webhook"], ["web"]]
    settings = real.settings("generation")
    assert settings["REPLICATE_API_TOKEN"] == "r8_real"
    assert "REPLICATE_WEBHOOK_SECRET" not in settings
    assert real.settings("webhook")["REPLICATE_WEBHOOK_SECRET"] == "whsec_real"
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


def test_the_studio_serves_what_generation_stores_and_signs() -> None:
    web, generation = stack().settings("web"), stack().settings("generation")

    assert web["REELWORKS_ADDRESS"] == "127.0.0.1:1009"
    assert web["REELWORKS_CREDITS_ADDRESS"] == "127.0.0.1:1001"
    assert web["REELWORKS_GENERATION_ADDRESS"] == "127.0.0.1:1002"
    assert web["REELWORKS_SESSION_KEYS_FILE"] == "/data/keys/session_keys"
    assert "REELWORKS_DATABASE_URL" not in web
    assert web["REELWORKS_MEDIA_URL"] == "http://127.0.0.1:1009/media"
    for name in ("MEDIA_URL", "STORAGE_URL", "CALLBACK_KEYS_FILE"):
        assert web[f"REELWORKS_{name}"] == generation[f"REELWORKS_{name}"]


def test_an_address_of_media_that_people_reach_is_passed_on() -> None:
    settings = stack(REELWORKS_MEDIA_URL="https://studio.example/media").settings("generation")

    assert settings["REELWORKS_MEDIA_URL"] == "https://studio.example/media"


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


@pytest.mark.parametrize("name", ["callback_keys", "session_keys"])
def test_keys_are_made_once_for_this_user_only(tmp_path: Path, name: str) -> None:
    make_keys(tmp_path)
    file = tmp_path / "keys" / name
    first = file.read_text()

    make_keys(tmp_path)

    assert file.read_text() == first
    assert len(parse_keys(first)) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
