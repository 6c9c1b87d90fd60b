"""The compose files keep each container to what it needs."""

import re
import shutil
import stat
import subprocess
import sysconfig
from pathlib import Path

import pytest

from services.credits.settings import CreditsSettings
from services.generation.settings import GenerationSettings
from services.runtime.callback import parse_keys
from tests.unit.deploy.composition import COMPOSE, composed
from tests.unit.deploy.manifests import DATABASE_WORKLOADS, ROOT, WORKLOADS
from tests.unit.deploy.workload_rules import MARGIN_S, SECRET_WORDS

FILES = ("compose.yaml", "compose.test.yaml", "compose.observability.yaml")
ALL = composed(*FILES)
ONCE = {"certificates", "cli", *(f"migrate-{name}" for name in DATABASE_WORKLOADS)}
WITHOUT_COMMANDS = {"collector"}
"""Whose image holds nothing that could ask for its health."""


@pytest.mark.parametrize("name", ALL.services)
def test_every_container_is_bounded_and_may_do_nothing_that_it_need_not(name: str) -> None:
    service = ALL.services[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service["user"].startswith("0")
    assert service.keys() >= {"cpus", "mem_limit", "pids_limit", "logging"}
    assert service["restart"] == ("no" if name in ONCE else "unless-stopped")
    assert "healthcheck" in service or name in ONCE | WITHOUT_COMMANDS


@pytest.mark.parametrize("name", ALL.services)
def test_every_image_is_of_this_release_or_pinned_by_digest(name: str) -> None:
    version = (ROOT / "pyproject.toml").read_text().partition('version = "')[2].partition('"')[0]
    image = ALL.services[name]["image"]

    if "build" in ALL.services[name]:
        target = ALL.services[name]["build"]["target"]
        # A name without a registry is looked for at the public one, where a stranger may own it.
        assert image == f"localhost/reelworks/{target}:{version}"
    else:
        assert re.fullmatch(r"[a-z/-]+:v?\d[^@]*@sha256:[0-9a-f]{64}", image)


@pytest.mark.parametrize("name", ALL.services)
def test_ports_are_published_on_this_machine_only(name: str) -> None:
    for port in ALL.services[name].get("ports", ()):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("name", ALL.services)
def test_secrets_are_files(name: str) -> None:
    service = ALL.services[name]
    mounted = {f"/run/secrets/{secret}" for secret in service.get("secrets", ())}
    told = {value for value in service.get("environment", {}).values() if "/run/secrets/" in value}

    for variable, value in service.get("environment", {}).items():
        assert variable.endswith("_FILE") or not (SECRET_WORDS.search(variable) and value)
    assert told <= mounted
    assert set(service.get("secrets", ())) <= ALL.content["secrets"].keys()


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_service_shows_the_certificate_of_its_role_and_no_other(name: str) -> None:
    (mount,) = [
        one for one in ALL.services[name]["volumes"]
        if isinstance(one, dict) and one["source"] == "certificates"
    ]  # fmt: skip

    assert mount["volume"]["subpath"] == f"certificates/{name}"
    assert mount["read_only"] is True


def test_the_command_line_is_an_operator_if_it_is_asked_for() -> None:
    service = ALL.services["cli"]
    (mount,) = service["volumes"]

    assert mount["volume"]["subpath"] == "certificates/operator"
    assert mount["read_only"] is True
    assert service["profiles"] == ["operator"]
    assert service["networks"] == ["inside"]
    assert service["entrypoint"] == ["reelworks"]
    assert service.keys() & {"secrets", "ports", "depends_on"} == set()
    for name in DATABASE_WORKLOADS:
        variable = f"REELWORKS_{'WEBHOOK_GRPC' if name == 'webhook' else name.upper()}_ADDRESS"
        assert service["environment"][variable] == f"dns:///{name}:50051"
        assert "inside" in ALL.services[name]["networks"]


def test_nobody_is_believed_unless_that_is_asked_for() -> None:
    assert composed("compose.yaml").environment("web")["REELWORKS_SIGN_IN"] == ""
    tried = composed("compose.yaml", "compose.test.yaml").environment("web")
    assert tried["REELWORKS_SIGN_IN"] == "development"


def test_certificates_are_renewed_by_running_their_container_again(tmp_path: Path) -> None:
    (_, _, script) = ALL.services["certificates"]["command"]
    script = script.replace("/var/run/reelworks", str(tmp_path))
    environment = {"PATH": f"{sysconfig.get_path('scripts')}:/usr/bin:/bin"}

    contents = []
    for _ in range(2):
        subprocess.run(["/bin/sh", "-c", script], check=True, env=environment, timeout=30)
        folder = tmp_path / "certificates"
        contents.append(
            {name: (folder / name).read_text() for name in ("ca.pem", "operator/tls.crt")}
        )

    first, second = contents
    assert first["ca.pem"] == second["ca.pem"]
    assert first["operator/tls.crt"] != second["operator/tls.crt"]


def test_who_needs_no_database_reaches_none_and_each_has_its_own_address() -> None:
    services = ALL.services
    near = {name for name, one in services.items() if "data" in one.get("networks", ())}

    assert near == {
        "postgresql",
        *DATABASE_WORKLOADS,
        *(f"migrate-{one}" for one in DATABASE_WORKLOADS),
    }
    assert ALL.content["networks"]["data"]["internal"] is True
    assert ALL.content["networks"]["inside"]["internal"] is True
    for name in DATABASE_WORKLOADS:
        for one in (name, f"migrate-{name}"):
            urls = [s for s in services[one]["secrets"] if s.endswith("_database_url")]
            assert urls == [f"{name}_database_url"]


def test_a_service_starts_after_what_it_needs() -> None:
    for name in DATABASE_WORKLOADS:
        after = ALL.services[name]["depends_on"]
        assert after["certificates"] == {"condition": "service_completed_successfully"}
        assert after[f"migrate-{name}"] == {"condition": "service_completed_successfully"}
        migration = ALL.services[f"migrate-{name}"]
        assert migration["depends_on"] == {"postgresql": {"condition": "service_healthy"}}
        assert migration["command"][:3] == ["reelworks", "migrate", name]


def test_a_service_has_the_time_to_leave() -> None:
    of = CreditsSettings.model_fields
    of_generation = GenerationSettings.model_fields
    least = of["drain_s"].default + of["grace_s"].default + MARGIN_S
    least_of_generation = of["drain_s"].default + of_generation["grace_s"].default + MARGIN_S

    for name in WORKLOADS:
        given = float(ALL.services[name]["stop_grace_period"].removesuffix("s"))
        assert given == (least_of_generation if name == "generation" else least)


def test_the_simulator_is_there_only_if_it_is_asked_for() -> None:
    plain = composed("compose.yaml")

    assert plain.services["simulator"]["profiles"] == ["simulator"]
    assert not any("simulator" in value for value in plain.environment("generation").values())
    assert ALL.environment("generation")["REPLICATE_BASE_URL"] == "http://simulator:8090"


def test_the_script_writes_every_secret_once(tmp_path: Path) -> None:
    script = shutil.copy(COMPOSE / "secrets.sh", tmp_path)
    environment = {"PATH": "/usr/bin:/bin", "REPLICATE_API_TOKEN": "r8_mine"}

    contents = []
    for _ in range(2):
        subprocess.run([script], check=True, env=environment, timeout=30)
        contents.append({file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()})

    first, second = contents
    assert first == second
    assert first.keys() == ALL.content["secrets"].keys()
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert len(parse_keys(first["callback_keys"])) == len(parse_keys(first["session_keys"])) == 1
    assert first["provider_token"] == "r8_mine\n"
    for name in DATABASE_WORKLOADS:
        password = first[f"{name}_database_password"].strip()
        assert len(password) == 48
        assert first[f"{name}_database_url"] == (
            f"postgresql://{name}:{password}@postgresql:5432/{name}\n"
        )
