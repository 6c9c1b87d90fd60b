"""What manifests and compose files tell a service, the service understands."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import ValidationError

from services.runtime.program import ProcessSettings
from services.runtime.settings import PREFIX, OrFile
from tests.unit.deploy.composition import composed
from tests.unit.deploy.manifests import WORKLOADS, manifests_of
from tests.unit.deploy.workload_rules import SETTINGS

OF_LIBRARIES = ("OTEL_", "PGSSL", "AWS_")
"""Beginnings of variables that libraries read by themselves."""
CONTENTS = {
    "REELWORKS_DATABASE_URL_FILE": "postgresql://user:word@host/name",
    "REPLICATE_API_TOKEN_FILE": "r8_word",
    "REELWORKS_STORAGE_ACCESS_KEY_FILE": "id:word",
}
"""What is in files that are read with the settings."""
PLACES = [
    *((place, name) for place in ("development", "production") for name in WORKLOADS),
    *((place, name) for place in ("compose", "compose with all") for name in WORKLOADS),
]


def environment(place: str, name: str) -> dict[str, str]:
    match place:
        case "compose":
            return composed("compose.yaml").environment(name)
        case "compose with all":
            files = ("compose.yaml", "compose.test.yaml", "compose.observability.yaml")
            return composed(*files).environment(name)
        case _:
            return manifests_of(place).environment(name)


def known(settings: type[ProcessSettings]) -> set[str]:
    """Returns the variables that settings are read from."""
    names = set()
    for name, field in settings.model_fields.items():
        alias = field.validation_alias
        variable = alias if isinstance(alias, str) else PREFIX + name.upper()
        names.add(variable)
        if any(isinstance(mark, OrFile) for mark in field.metadata):
            names.add(f"{variable}_FILE")
    return names


def unknown(name: str, variables: Mapping[str, str]) -> Iterator[str]:
    for variable in variables:
        if not variable.startswith(OF_LIBRARIES) and variable not in known(SETTINGS[name]):
            yield variable


def load(
    name: str, variables: Mapping[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> ProcessSettings:
    """Returns the settings of a service that finds these variables."""
    for variable in known(SETTINGS[name]):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in variables.items():
        if value and variable in CONTENTS:
            (folder / variable).write_text(CONTENTS[variable])
            monkeypatch.setenv(variable, str(folder / variable))
        else:
            monkeypatch.setenv(variable, value)
    return SETTINGS[name]()


@pytest.mark.parametrize(("place", "name"), PLACES)
def test_every_variable_is_a_setting_of_the_service(place: str, name: str) -> None:
    variables = environment(place, name)

    assert len(variables) > 8
    assert list(unknown(name, variables)) == []


@pytest.mark.parametrize(("place", "name"), PLACES)
def test_the_service_takes_their_values(
    place: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load(name, environment(place, name), tmp_path, monkeypatch)

    assert settings.has_tls
    assert settings.log_format == "json"
    assert settings.environment != "local"
    assert settings.metrics_address == "0.0.0.0:9464"


@pytest.mark.parametrize("place", ["development", "production", "compose", "compose with all"])
def test_who_signs_callbacks_and_who_checks_them_name_one_environment(place: str) -> None:
    names = {environment(place, name)["REELWORKS_ENVIRONMENT"] for name in WORKLOADS}

    assert len(names) == 1


def test_a_misspelt_variable_and_a_wrong_value_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = environment("production", "generation")

    assert list(unknown("generation", variables | {"REELWORKS_GRACE": "5"})) == ["REELWORKS_GRACE"]
    assert list(unknown("web", {"REELWORKS_HEALTH_ADDRESS": "x"})) == ["REELWORKS_HEALTH_ADDRESS"]
    with pytest.raises(ValidationError):
        load("generation", variables | {"REELWORKS_GRACE_S": "-1"}, tmp_path, monkeypatch)
