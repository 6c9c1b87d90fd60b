"""Each rule finds the fault that it is there for, in manifests that are good otherwise."""

from collections.abc import Callable

import pytest

from tests.unit.deploy.flows import FLOWS, closed, flows
from tests.unit.deploy.manifests import Manifests, Object, manifests_of
from tests.unit.deploy.workload_rules import IN_PRODUCTION

Fault = Callable[[Manifests], None]


def deployment(manifests: Manifests, name: str = "credits") -> Object:
    spec = manifests.named("Deployment", name)["spec"]
    assert isinstance(spec, dict)
    return spec


def pod(manifests: Manifests, name: str = "credits") -> Object:
    spec = deployment(manifests, name)["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


def container(manifests: Manifests, name: str = "credits") -> Object:
    (found,) = pod(manifests, name)["containers"]
    assert isinstance(found, dict)
    return found


def configuration(manifests: Manifests, name: str) -> Object:
    (source,) = container(manifests, name)["envFrom"]
    data = manifests.named("ConfigMap", source["configMapRef"]["name"])["data"]
    assert isinstance(data, dict)
    return data


def scaler(manifests: Manifests, name: str) -> Object:
    spec = manifests.named("HorizontalPodAutoscaler", name)["spec"]
    assert isinstance(spec, dict)
    return spec


def without(manifests: Manifests, kind: str, name: str) -> None:
    manifests.objects.remove(manifests.named(kind, name))


def lose_scaler(manifests: Manifests, name: str) -> None:
    without(manifests, "HorizontalPodAutoscaler", name)
    deployment(manifests, name).update(replicas=1)


def policy(manifests: Manifests, name: str) -> Object:
    spec = manifests.named("NetworkPolicy", name)["spec"]
    assert isinstance(spec, dict)
    return spec


def job(manifests: Manifests, name: str) -> Object:
    (found,) = [one for one in manifests.of("Job") if one["metadata"]["name"].startswith(name)]
    return found


FAULTS: dict[str, list[Fault]] = {
    "replicas": [
        lambda m: scaler(m, "credits").update(minReplicas=2),
        lambda m: deployment(m, "web").update(replicas=3),
        lambda m: lose_scaler(m, "web"),
    ],
    "rollout": [lambda m: deployment(m)["strategy"]["rollingUpdate"].update(maxUnavailable=1)],
    "spread": [
        lambda m: pod(m)["topologySpreadConstraints"].pop(),
        lambda m: pod(m).pop("topologySpreadConstraints"),
        lambda m: pod(m)["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"].update(
            {"app.kubernetes.io/name": "web"}
        ),
    ],
    "disruption": [
        lambda m: without(m, "PodDisruptionBudget", "web"),
        lambda m: m.named("PodDisruptionBudget", "web")["spec"].update(maxUnavailable=0),
        lambda m: m.named("PodDisruptionBudget", "web")["spec"].pop("unhealthyPodEvictionPolicy"),
        lambda m: m.named("PodDisruptionBudget", "web")["spec"].update(
            selector={"matchLabels": {"app.kubernetes.io/part-of": "reelworks"}}
        ),
    ],
    "scaling": [
        lambda m: without(m, "HorizontalPodAutoscaler", "webhook"),
        lambda m: scaler(m, "web")["metrics"].pop(),
        lambda m: scaler(m, "generation")["metrics"][0]["pods"]["metric"].update(name="age"),
        lambda m: scaler(m, "web")["behavior"]["scaleDown"].update(stabilizationWindowSeconds=0),
        lambda m: scaler(m, "web").update(maxReplicas=2),
    ],
    "probes": [
        lambda m: container(m).pop("startupProbe"),
        lambda m: container(m)["livenessProbe"]["grpc"].update(service="ready"),
        lambda m: container(m)["readinessProbe"]["grpc"].update(port=50051),
        lambda m: container(m, "web")["readinessProbe"]["httpGet"].update(path="/healthz/live"),
        lambda m: container(m, "webhook").update(
            livenessProbe={"httpGet": {"path": "/healthz", "port": "http"}}
        ),
    ],
    "security": [
        lambda m: container(m)["securityContext"].pop("readOnlyRootFilesystem"),
        lambda m: container(m)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
        lambda m: container(m)["securityContext"].update(allowPrivilegeEscalation=True),
        lambda m: pod(m).pop("automountServiceAccountToken"),
        lambda m: pod(m).update(serviceAccountName="default"),
        lambda m: pod(m)["securityContext"].update(runAsUser=0),
        lambda m: pod(m)["securityContext"].pop("seccompProfile"),
        lambda m: pod(m).update(hostNetwork=True),
        lambda m: pod(m)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
        lambda m: pod(m)["volumes"].append({"name": "x", "emptyDir": {}}),
        lambda m: pod(m)["volumes"].append({"name": "x", "emptyDir": {"sizeLimit": "1Gi"}}),
        lambda m: pod(m).update(initContainers=[{"name": "first"}]),
        lambda m: m.named("ServiceAccount", "web").pop("automountServiceAccountToken"),
        lambda m: job(m, "credits")["spec"]["template"]["spec"]["containers"][0].pop(
            "securityContext"
        ),
    ],
    "resources": [
        lambda m: container(m).pop("resources"),
        lambda m: container(m)["resources"]["limits"].update(memory="1Gi"),
        lambda m: container(m)["resources"]["limits"].update(cpu="300m"),
        lambda m: container(m)["resources"]["limits"].pop("ephemeral-storage"),
    ],
    "secrets": [
        lambda m: container(m)["envFrom"].append({"secretRef": {"name": "credits-db-app"}}),
        lambda m: container(m).update(
            env=[{"name": "REELWORKS_DATABASE_URL", "valueFrom": {"secretKeyRef": {}}}]
        ),
        lambda m: container(m).update(env=[{"name": "REELWORKS_DATABASE_URL", "value": "x"}]),
        lambda m: configuration(m, "generation").update(REPLICATE_API_TOKEN="r8_x"),
        lambda m: configuration(m, "generation").update(AWS_SECRET_ACCESS_KEY="x"),
        lambda m: configuration(m, "web").update(REELWORKS_SUPABASE_JWT_SECRET="x"),
    ],
    "services": [
        lambda m: m.named("Service", "credits")["spec"].pop("clusterIP"),
        lambda m: m.named("Service", "web")["spec"].update(clusterIP="None"),
        lambda m: m.named("Service", "web")["spec"].update(type="LoadBalancer"),
        lambda m: m.named("Service", "web")["spec"]["selector"].update(
            {"app.kubernetes.io/name": "webhook"}
        ),
        lambda m: m.named("Service", "credits")["spec"]["ports"][0].update(targetPort="http"),
        lambda m: m.named("Service", "webhook")["spec"]["ports"].pop(),
    ],
    "leaving": [
        lambda m: pod(m).update(terminationGracePeriodSeconds=30),
        lambda m: container(m).pop("lifecycle"),
        lambda m: configuration(m, "credits").update(REELWORKS_GRACE_S="60"),
        lambda m: configuration(m, "web").pop("REELWORKS_DRAIN_S"),
    ],
    "selectors": [
        lambda m: deployment(m)["template"]["metadata"]["labels"].update(
            {"app.kubernetes.io/name": "credit"}
        ),
        lambda m: deployment(m).update(selector={"matchLabels": {"app": "credits"}}),
        lambda m: policy(m, "web").update(podSelector={"matchLabels": {"app": "web"}}),
    ],
    "images": [
        lambda m: container(m).update(image="reelworks/credits"),
        lambda m: container(m).update(image="reelworks/credits:latest"),
        lambda m: container(m).update(image="reelworks/web:0.1.0"),
    ],
    "migrations": [
        lambda m: m.objects.remove(job(m, "credits")),
        lambda m: job(m, "credits")["spec"].update(backoffLimit=6),
        lambda m: job(m, "credits")["metadata"].update(
            annotations={"argocd.argoproj.io/sync-wave": "-1"}
        ),
        lambda m: job(m, "credits")["spec"]["template"]["spec"]["containers"][0].update(
            command=["reelworks", "migrate"]
        ),
        lambda m: pod(m, "webhook")["volumes"].append(
            {"name": "x", "secret": {"secretName": "credits-db-app"}}
        ),
    ],
    "connections": [
        lambda m: scaler(m, "credits").update(maxReplicas=20),
        lambda m: m.named("Cluster", "webhook-db")["spec"]["postgresql"]["parameters"].update(
            max_connections="100"
        ),
    ],
}
OPENINGS: list[Fault] = [
    lambda m: without(m, "NetworkPolicy", "closed"),
    lambda m: policy(m, "credits").update(egress=[{}], policyTypes=["Ingress", "Egress"]),
    lambda m: policy(m, "credits")["ingress"].append({"ports": [{"port": 50051}]}),
    lambda m: policy(m, "credits")["ingress"][0].pop("ports"),
    lambda m: policy(m, "credits")["ingress"][0]["from"].append({"podSelector": {}}),
    lambda m: policy(m, "credits")["ingress"][0]["from"].append({"namespaceSelector": {}}),
    lambda m: policy(m, "credits").update(policyTypes=["Egress"]),
    lambda m: policy(m, "credits")["ingress"][0]["ports"][0].update(endPort=65535),
]
OTHER_FLOWS: list[Fault] = [
    lambda m: without(m, "NetworkPolicy", "generation"),
    lambda m: policy(m, "webhook")["egress"][0]["to"].append(
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "credits"}}}
    ),
    lambda m: policy(m, "credits")["ingress"][0]["from"].append(
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "webhook"}}}
    ),
    lambda m: policy(m, "generation")["egress"][-1]["to"][0]["ipBlock"]["except"].remove(
        "10.0.0.0/8"
    ),
    lambda m: policy(m, "credits")["ingress"][0]["ports"].append({"port": 9464}),
    lambda m: policy(m, "credits-database")["podSelector"]["matchExpressions"][0]["values"].append(
        "web"
    ),
    lambda m: policy(m, "metrics")["ingress"][0]["from"][0].pop("podSelector"),
    lambda m: policy(m, "names")["egress"][0]["to"].pop(),
    lambda m: policy(m, "from-operator")["podSelector"]["matchExpressions"][0]["values"].pop(),
]


def test_every_rule_has_its_faults() -> None:
    assert FAULTS.keys() == IN_PRODUCTION.keys()


@pytest.mark.parametrize(
    ("rule", "fault"),
    [(rule, fault) for rule, faults in FAULTS.items() for fault in faults],
)
def test_a_planted_fault_is_found(rule: str, fault: Fault) -> None:
    manifests = manifests_of("production")

    fault(manifests)

    assert list(IN_PRODUCTION[rule](manifests))


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_planted_opening_is_found(opening: Fault) -> None:
    manifests = manifests_of("production")

    opening(manifests)

    assert list(closed(manifests))


@pytest.mark.parametrize("fault", OTHER_FLOWS)
def test_a_flow_too_many_or_too_few_is_found(fault: Fault) -> None:
    manifests = manifests_of("production")

    fault(manifests)

    found, one_sided = flows(manifests)
    assert found != FLOWS["production"] or one_sided
