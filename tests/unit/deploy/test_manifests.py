"""Every workload of each overlay has what every workload has."""

import re

import pytest
import yaml

from tests.unit.deploy.flows import FLOWS, closed, flows
from tests.unit.deploy.manifests import (
    DATABASE_WORKLOADS,
    KUBERNETES,
    ROOT,
    WORKLOADS,
    manifests_of,
)
from tests.unit.deploy.workload_rules import EVERYWHERE, IN_PRODUCTION

OVERLAYS = ("development", "production")
COMPONENTS = {
    "mtls", "cloudnative-pg", "otel", "external-secrets", "autoscaling", "operator", "sign-in",
    "simulator",
}  # fmt: skip
KINDS_OF_OTHERS = {
    "Certificate": "cert-manager.io/v1",
    "Issuer": "cert-manager.io/v1",
    "Cluster": "postgresql.cnpg.io/v1",
    "ScheduledBackup": "postgresql.cnpg.io/v1",
    "ObjectStore": "barmancloud.cnpg.io/v1",
    "ExternalSecret": "external-secrets.io/v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "PodMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
}
"""What no schema of Kubernetes knows, and so nothing else checks."""


@pytest.mark.parametrize("rule", IN_PRODUCTION)
def test_production_has_what_every_workload_has(rule: str) -> None:
    assert list(IN_PRODUCTION[rule](manifests_of("production"))) == []


@pytest.mark.parametrize("rule", EVERYWHERE)
def test_development_has_all_but_the_many_replicas(rule: str) -> None:
    assert list(EVERYWHERE[rule](manifests_of("development"))) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_open_that_no_policy_names(overlay: str) -> None:
    assert list(closed(manifests_of(overlay))) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_flows_is_the_table_of_flows_and_nothing_besides(overlay: str) -> None:
    found, one_sided = flows(manifests_of(overlay))

    assert found - FLOWS[overlay] == set()
    assert FLOWS[overlay] - found == set()
    assert one_sided == set()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_operator_has_the_command_line_and_its_own_certificate(overlay: str) -> None:
    manifests = manifests_of(overlay)
    deployment = manifests.named("Deployment", "operator")
    environment = manifests.environment("operator")

    assert _attributes(deployment)["csi.cert-manager.io/uri-sans"] == "spiffe://reelworks/operator"
    assert (
        environment.items()
        >= {
            "REELWORKS_CREDITS_ADDRESS": "dns:///credits:50051",
            "REELWORKS_GENERATION_ADDRESS": "dns:///generation:50051",
            "REELWORKS_WEBHOOK_GRPC_ADDRESS": "dns:///webhook:50051",
            "REELWORKS_TLS_KEY_FILE": "/var/run/reelworks/tls/tls.key",
        }.items()
    )
    # Nothing leads in, and its key is all that it has.
    assert not any(to == "operator" for _, to, _ in flows(manifests)[0])
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    assert [volume.keys() - {"name"} for volume in volumes] == [{"emptyDir"}, {"csi"}]


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("name", WORKLOADS)
def test_each_workload_has_a_certificate_of_its_own_role(overlay: str, name: str) -> None:
    manifests = manifests_of(overlay)
    attributes = _attributes(manifests.named("Deployment", name))
    environment = manifests.environment(name)

    assert attributes["csi.cert-manager.io/uri-sans"] == f"spiffe://reelworks/{name}"
    assert name in attributes["csi.cert-manager.io/dns-names"].split(",")
    assert attributes["csi.cert-manager.io/issuer-name"] in {
        one["metadata"]["name"] for one in manifests.of("Issuer")
    }
    assert [
        environment[f"REELWORKS_TLS_{part}_FILE"].rpartition("/")[2]
        for part in ("CERTIFICATE", "KEY", "CA")
    ] == ["tls.crt", "tls.key", "ca.crt"]


@pytest.mark.parametrize("name", DATABASE_WORKLOADS)
def test_no_acknowledged_movement_is_on_one_machine_only(name: str) -> None:
    spec = manifests_of("production").named("Cluster", f"{name}-db")["spec"]

    assert spec["instances"] == 3
    assert spec["postgresql"]["synchronous"] == {
        "method": "any",
        "number": 1,
        "dataDurability": "required",
    }
    assert spec["bootstrap"]["initdb"]["database"] == spec["bootstrap"]["initdb"]["owner"] == name
    assert spec["plugins"][0]["isWALArchiver"] is True
    assert "barmanObjectStore" not in str(spec.get("backup"))


def test_every_database_is_backed_up_to_a_store_that_exists() -> None:
    manifests = manifests_of("production")
    stores = {one["metadata"]["name"] for one in manifests.of("ObjectStore")}

    assert {one["spec"]["cluster"]["name"] for one in manifests.of("ScheduledBackup")} == {
        one["metadata"]["name"] for one in manifests.of("Cluster")
    }
    for cluster in manifests.of("Cluster"):
        (plugin,) = cluster["spec"]["plugins"]
        assert plugin["parameters"]["barmanObjectName"] in stores


def test_a_database_is_of_the_version_that_compose_has_and_pinned() -> None:
    wanted = re.search(r"# (18\.\d+);", (ROOT / "deploy/compose/compose.yaml").read_text())
    assert wanted is not None

    for overlay in OVERLAYS:
        for cluster in manifests_of(overlay).of("Cluster"):
            assert re.fullmatch(
                rf"ghcr\.io/cloudnative-pg/postgresql:{wanted[1]}-[a-z-]+@sha256:[0-9a-f]{{64}}",
                cluster["spec"]["imageName"],
            )


def test_backups_have_a_key_that_comes_from_somewhere() -> None:
    manifests = manifests_of("production")

    for store in manifests.of("ObjectStore"):
        credentials = store["spec"]["configuration"]["s3Credentials"]
        assert credentials.keys() == {"accessKeyId", "secretAccessKey"}
        for reference in credentials.values():
            secret = manifests.named("ExternalSecret", reference["name"])["spec"]
            assert reference["key"] in {one["secretKey"] for one in secret["data"]}


def test_links_to_videos_outlive_no_key_that_signed_them() -> None:
    environment = manifests_of("production").environment("generation")

    assert "REELWORKS_STORAGE_ACCESS_KEY_FILE" in environment
    assert not any(name.startswith("AWS_") for name in environment)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_image_of_ours_is_looked_for_where_a_stranger_may_own_its_name(overlay: str) -> None:
    for _, pod in manifests_of(overlay).pod_specs:
        for container in pod["containers"]:
            assert container["image"].startswith(("localhost/", "registry.example.com/"))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kinds_that_no_schema_knows_are_of_versions_that_exist(overlay: str) -> None:
    found = {
        one["kind"]: one["apiVersion"]
        for one in manifests_of(overlay).objects
        # Kubernetes' own are `v1`, `apps/v1` and such, or of a group of k8s.io that it serves.
        if one["kind"] == "HTTPRoute"
        or not re.search(r"^[a-z0-9]+(/|$)|k8s\.io/", one["apiVersion"])
    }

    assert found.items() <= KINDS_OF_OTHERS.items()


def test_every_secret_that_is_mounted_comes_from_somewhere() -> None:
    manifests = manifests_of("production")
    made = {one["spec"]["target"]["name"] for one in manifests.of("ExternalSecret")}
    for cluster in manifests.of("Cluster"):
        made |= {f"{cluster['metadata']['name']}-{what}" for what in ("app", "ca")}
    keys = {
        one["spec"]["target"]["name"]: {entry["secretKey"] for entry in one["spec"]["data"]}
        for one in manifests.of("ExternalSecret")
    }

    for _, pod in manifests.pod_specs:
        for secret in (volume["secret"] for volume in pod["volumes"] if "secret" in volume):
            assert secret["secretName"] in made
            wanted = {item["key"] for item in secret["items"]}
            assert wanted <= keys.get(secret["secretName"], wanted)


def test_webhooks_go_to_webhook_and_all_else_to_web() -> None:
    (route,) = manifests_of("production").of("HTTPRoute")
    (ingress,) = manifests_of("development").of("Ingress")
    by_route = {
        rule["matches"][0]["path"]["value"]: rule["backendRefs"][0]["name"]
        for rule in route["spec"]["rules"]
    }
    by_ingress = {
        path["path"].rstrip("/") or "/": path["backend"]["service"]["name"]
        for path in ingress["spec"]["rules"][0]["http"]["paths"]
    }

    assert by_route == by_ingress == {"/api/webhooks": "webhook", "/": "web"}
    # Streams of events are not cut off, and arrive when they are sent.
    (web,) = [one for one in route["spec"]["rules"] if one["name"] == "web"]
    assert web["timeouts"]["request"] == "0s"
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
    assert int(annotations["nginx.ingress.kubernetes.io/proxy-read-timeout"]) > 60


def test_prometheus_knows_each_service_by_its_job() -> None:
    monitors = {
        monitor["metadata"]["name"]: monitor
        for monitor in manifests_of("production").of("PodMonitor")
    }
    monitor = monitors.pop("reelworks")

    assert monitor["spec"]["jobLabel"] == "app.kubernetes.io/name"
    assert manifests_of("production").matching(monitor["spec"]["selector"]) == set(WORKLOADS)
    assert [one["port"] for one in monitor["spec"]["podMetricsEndpoints"]] == ["metrics"]
    assert list(monitors) == ["databases"]


def test_prometheus_knows_each_database_by_its_cluster() -> None:
    production = manifests_of("production")
    (monitor,) = (
        one for one in production.of("PodMonitor") if one["metadata"]["name"] == "databases"
    )
    (chosen,) = monitor["spec"]["selector"]["matchExpressions"]

    assert monitor["spec"]["jobLabel"] == chosen["key"] == "cnpg.io/cluster"
    assert set(chosen["values"]) == {one["metadata"]["name"] for one in production.of("Cluster")}


def test_every_component_is_here_and_is_built_by_a_test() -> None:
    assert {path.name for path in (KUBERNETES / "components").iterdir()} == COMPONENTS
    used = {
        name.rpartition("/")[2]
        for overlay in OVERLAYS
        for name in yaml.safe_load(
            (KUBERNETES / "overlays" / overlay / "kustomization.yaml").read_text()
        )["components"]
    }

    assert used == COMPONENTS


def test_the_release_is_the_version_of_the_project() -> None:
    project = (ROOT / "pyproject.toml").read_text().partition('version = "')[2].partition('"')[0]

    for overlay in OVERLAYS:
        for job in manifests_of(overlay).of("Job"):
            assert job["metadata"]["name"].endswith(f"-{project}")


def _attributes(deployment: dict[str, object]) -> dict[str, str]:
    text = yaml.safe_dump(deployment)
    volumes = yaml.safe_load(text)["spec"]["template"]["spec"]["volumes"]
    (found,) = [one["csi"]["volumeAttributes"] for one in volumes if "csi" in one]
    assert isinstance(found, dict)
    return found
