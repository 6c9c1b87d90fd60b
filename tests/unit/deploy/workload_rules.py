"""What every workload has: each rule says what is wrong, and nothing of good ones."""

import re
from collections.abc import Callable, Iterator

from services.credits.settings import CreditsSettings
from services.generation.settings import GenerationSettings
from services.runtime.measures import DECLARED, PREFIX
from services.runtime.program import ProcessSettings
from services.web.settings import WebSettings
from services.webhook.settings import WebhookSettings
from tests.unit.deploy.manifests import DATABASE_WORKLOADS, NAME, WORKLOADS, Manifests, Object

Rule = Callable[[Manifests], Iterator[str]]
SETTINGS: dict[str, type[ProcessSettings]] = {
    "credits": CreditsSettings,
    "generation": GenerationSettings,
    "webhook": WebhookSettings,
    "web": WebSettings,
}
REPLICAS_MIN = {"credits": 3, "generation": 2, "webhook": 2, "web": 2}
PORTS = {"credits": {50051}, "generation": {50051}, "webhook": {8080, 50051}, "web": {8080}}
"""Of the services; webhook's gRPC is for operators."""
MARGIN_S = 10
SCALED_BY = {
    "credits": {"cpu"},
    "generation": {"reelworks_ready_age_seconds"},
    "webhook": {"cpu"},
    "web": {"cpu", "reelworks_sse_streams"},
}
ON_DISK = {"generation", "simulator"}
"""Whose scratch is too large for memory."""
SECRET_WORDS = re.compile(r"TOKEN|SECRET|PASSWORD|DATABASE_URL|ACCESS_KEY|ANON_KEY|JWT|PRIVATE")


def replicas(manifests: Manifests) -> Iterator[str]:
    for name, least in REPLICAS_MIN.items():
        spec = manifests.named("Deployment", name)["spec"]
        scalers = [
            one["spec"]["minReplicas"]
            for one in manifests.of("HorizontalPodAutoscaler")
            if one["spec"]["scaleTargetRef"]["name"] == name
        ]
        if "replicas" in spec and scalers:
            yield f"{name}: a release would set back what the autoscaler chose"
        if min([*scalers, spec.get("replicas", least)]) < least:
            yield f"{name}: fewer than {least} replicas"


def rollout(manifests: Manifests) -> Iterator[str]:
    for name in WORKLOADS:
        strategy = manifests.named("Deployment", name)["spec"]["strategy"]
        if strategy != {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
        }:
            yield f"{name}: a release takes replicas away before it has new ones"


def spread(manifests: Manifests) -> Iterator[str]:
    for name in WORKLOADS:
        pod = manifests.named("Deployment", name)["spec"]["template"]["spec"]
        keys = {
            one["topologyKey"]
            for one in pod.get("topologySpreadConstraints", ())
            if one["labelSelector"] == {"matchLabels": {NAME: name}} and one["maxSkew"] == 1
        }
        for key in {"topology.kubernetes.io/zone", "kubernetes.io/hostname"} - keys:
            yield f"{name}: not spread by {key}"


def disruption(manifests: Manifests) -> Iterator[str]:
    for name in WORKLOADS:
        good = [
            one
            for one in manifests.of("PodDisruptionBudget")
            if manifests.matching(one["spec"]["selector"]) == {name}
            and one["spec"]["maxUnavailable"] == 1
            and one["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow"
        ]
        if len(good) != 1:
            yield f"{name}: {len(good)} good budgets for disruptions"


def scaling(manifests: Manifests) -> Iterator[str]:
    scalers = {
        one["spec"]["scaleTargetRef"]["name"]: one["spec"]
        for one in manifests.of("HorizontalPodAutoscaler")
    }
    for name in WORKLOADS:
        scaler = scalers.get(name)
        if scaler is None:
            yield f"{name}: no autoscaler"
            continue
        names = set(map(_scaled_by, scaler["metrics"]))
        if names != SCALED_BY[name]:
            yield f"{name}: scaled by {sorted(names)}"
        for metric in names - {"cpu"}:
            if metric.removeprefix(PREFIX) not in DECLARED:
                yield f"{name}: nothing measures {metric}"
        if scaler["behavior"]["scaleDown"]["stabilizationWindowSeconds"] != 300:
            yield f"{name}: scaled down in haste"
        if scaler["maxReplicas"] <= scaler["minReplicas"]:
            yield f"{name}: cannot grow"


def _scaled_by(metric: Object) -> str:
    if metric["type"] == "Resource":
        return str(metric["resource"]["name"])
    return str(metric["pods"]["metric"]["name"])


def probes(manifests: Manifests) -> Iterator[str]:
    http = {
        f"{kind}Probe": ("httpGet", f"/healthz/{path}")
        for kind, path in (("startup", "startup"), ("readiness", "ready"), ("liveness", "live"))
    }
    grpc = {
        f"{kind}Probe": ("grpc", name)
        for kind, name in (("startup", "startup"), ("readiness", "ready"), ("liveness", "live"))
    }
    webhook = {
        "startupProbe": ("grpc", "startup"),
        "readinessProbe": ("httpGet", "/healthz"),
        # Nothing that strangers can keep busy decides over its life.
        "livenessProbe": ("tcpSocket", "http"),
    }
    wanted = {"credits": grpc, "generation": grpc, "webhook": webhook, "web": http}
    for name in WORKLOADS:
        container = _container(manifests, name)
        for probe, (kind, what) in wanted[name].items():
            found: Object = container.get(probe, {}).get(kind, {})
            asked = found.get("service") or found.get("path") or found.get("port")
            if asked != what or (kind == "grpc" and found["port"] != 50059):
                yield f"{name}: {probe} is not {kind} {what}"


def security(manifests: Manifests) -> Iterator[str]:
    for name, pod in manifests.pod_specs:
        account = name.removesuffix("-migration")
        accounts = {one["metadata"]["name"] for one in manifests.of("ServiceAccount")}
        if pod.get("serviceAccountName") != account or account not in accounts:
            yield f"{name}: no service account of its own"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{name}: has a token of the cluster"
        context = pod.get("securityContext", {})
        if (context.get("runAsNonRoot"), context.get("runAsUser")) != (True, 10001):
            yield f"{name}: does not run as 10001"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name}: may make any system call"
        if pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}:
            yield f"{name}: shares its node's"
        for container in (*pod["containers"], *pod.get("initContainers", ())):
            yield from _contained(name, container)
        yield from _volumes(name, pod)
    for one in manifests.of("ServiceAccount"):
        if one.get("automountServiceAccountToken") is not False:
            yield f"{one['metadata']['name']}: its pods have tokens"


def _contained(name: str, container: Object) -> Iterator[str]:
    if container.get("securityContext") != {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "capabilities": {"drop": ["ALL"]},
    }:
        yield f"{name}: its container may do more than it needs"


def _volumes(name: str, pod: Object) -> Iterator[str]:
    for volume in pod.get("volumes", ()):
        match volume:
            case {"emptyDir": {"sizeLimit": _, **how}}:
                if how != ({} if name in ON_DISK else {"medium": "Memory"}):
                    yield f"{name}: scratch is not in memory, or too large for it"
            case {"emptyDir": _}:
                yield f"{name}: scratch has no limit"
            case {"secret": {"defaultMode": 0o440}} | {"projected": {"defaultMode": 0o440}}:
                pass
            case {"csi": {"driver": "csi.cert-manager.io", "readOnly": True}}:
                pass
            case {"persistentVolumeClaim": {"claimName": "media"}}:
                pass
            case _:
                yield f"{name}: volume {volume['name']} is none of these"


def resources(manifests: Manifests) -> Iterator[str]:
    for name, pod in manifests.pod_specs:
        for container in pod["containers"]:
            given = container.get("resources", {})
            requests, limits = given.get("requests", {}), given.get("limits", {})
            names = {"cpu", "memory", "ephemeral-storage"}
            if requests.keys() != names or limits.keys() != names:
                yield f"{name}: resources are not all bounded"
                continue
            if quantity(limits["memory"]) != 2 * quantity(requests["memory"]):
                yield f"{name}: the limit of memory is not twice the request"
            if quantity(limits["cpu"]) < 4 * quantity(requests["cpu"]):
                yield f"{name}: the limit of CPU throttles"


def quantity(text: str) -> float:
    """Returns the number of a quantity of Kubernetes."""
    for unit, factor in (("Mi", 2**20), ("Gi", 2**30), ("m", 0.001)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)


def secrets(manifests: Manifests) -> Iterator[str]:
    for name, pod in manifests.pod_specs:
        for container in pod["containers"]:
            for source in container.get("envFrom", ()):
                if "secretRef" in source:
                    yield f"{name}: a secret in the environment"
            for one in container.get("env", ()):
                if "valueFrom" in one:
                    yield f"{name}: {one['name']} is taken from elsewhere"
                elif _tells(one["name"]):
                    yield f"{name}: {one['name']} in the environment"
    for one in manifests.of("ConfigMap"):
        for key in one["data"]:
            if _tells(key):
                yield f"{one['metadata']['name']}: {key} is no configuration"


def _tells(variable: str) -> bool:
    return bool(SECRET_WORDS.search(variable)) and not variable.endswith("_FILE")


def services(manifests: Manifests) -> Iterator[str]:
    for name in WORKLOADS:
        service = manifests.named("Service", name)["spec"]
        if manifests.matching({"matchLabels": service["selector"]}) != {name}:
            yield f"{name}: its service selects others"
        if (service.get("clusterIP") == "None") != (PORTS[name] == {50051}):
            yield f"{name}: headless is for gRPC, and for nothing else"
        container = _container(manifests, name)
        numbers = {one["name"]: one["containerPort"] for one in container["ports"]}
        if any(numbers.get(one["targetPort"]) != one["port"] for one in service["ports"]):
            yield f"{name}: its service leads nowhere"
        if {one["port"] for one in service["ports"]} != PORTS[name]:
            yield f"{name}: its service has other ports"
        if service.get("type", "ClusterIP") != "ClusterIP":
            yield f"{name}: open to the outside"


def leaving(manifests: Manifests) -> Iterator[str]:
    for name in WORKLOADS:
        pod = manifests.named("Deployment", name)["spec"]["template"]["spec"]
        environment = manifests.environment(name)
        drain_s, grace_s = (
            float(
                environment.get(f"REELWORKS_{setting.upper()}")
                or SETTINGS[name].model_fields[setting].default
            )
            for setting in ("drain_s", "grace_s")
        )
        wait = _container(manifests, name).get("lifecycle", {}).get("preStop")
        if wait != {"sleep": {"seconds": 5}}:
            yield f"{name}: leaves before balancers look away"
        if drain_s < 5:
            yield f"{name}: does not drain"
        if pod.get("terminationGracePeriodSeconds") != 5 + drain_s + grace_s + MARGIN_S:
            yield f"{name}: is killed too early or too late"


def selectors(manifests: Manifests) -> Iterator[str]:
    for one in manifests.of("Deployment"):
        labels = one["spec"]["template"]["metadata"]["labels"]
        if one["spec"]["selector"] != {"matchLabels": {NAME: one["metadata"]["name"]}}:
            yield f"{one['metadata']['name']}: its selector is not its name"
        if not one["spec"]["selector"]["matchLabels"].items() <= labels.items():
            yield f"{one['metadata']['name']}: does not select its own pods"
    for policy in manifests.of("NetworkPolicy"):
        selector = policy["spec"]["podSelector"]
        if selector and not manifests.matching(selector):
            yield f"{policy['metadata']['name']}: a policy for nobody"


def images(manifests: Manifests) -> Iterator[str]:
    version = manifests.of("Job")[0]["metadata"]["name"].rpartition("-")[2]
    for name, pod in manifests.pod_specs:
        for container in pod["containers"]:
            address, _, tag = container["image"].rpartition(":")
            if tag != version:
                yield f"{name}: the image is {container['image']}, the release {version}"
            if not address.endswith(f"reelworks/{_image(name)}"):
                yield f"{name}: runs the image of another"


def _image(name: str) -> str:
    return "cli" if name == "operator" else name.removesuffix("-migration")


def migrations(manifests: Manifests) -> Iterator[str]:
    jobs = {one["metadata"]["name"].rpartition("-")[0]: one for one in manifests.of("Job")}
    if jobs.keys() != {f"{name}-migration" for name in DATABASE_WORKLOADS}:
        yield f"jobs: {sorted(jobs)}"
        return
    for name in DATABASE_WORKLOADS:
        job = jobs[f"{name}-migration"]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        if container["command"][:3] != ["reelworks", "migrate", name]:
            yield f"{name}: its job does not migrate"
        if job["spec"]["backoffLimit"] != 3:
            yield f"{name}: its job is not tried thrice more"
        if job["metadata"].get("annotations"):
            yield f"{name}: its job may have to wait for what waits for it"
        for pod in (job, manifests.named("Deployment", name)):
            yield from _own_database(name, pod)


def _own_database(name: str, owner: Object) -> Iterator[str]:
    mounted = {
        volume["secret"]["secretName"]
        for volume in owner["spec"]["template"]["spec"]["volumes"]
        if "-db-" in volume.get("secret", {}).get("secretName", "")
    }
    if mounted != {f"{name}-db-app", f"{name}-db-ca"}:
        yield f"{name}: has the databases {sorted(mounted)}"


def connections(manifests: Manifests) -> Iterator[str]:
    """Each replica writes, reads and scans; a release has one more, and its migration."""
    fields = SETTINGS["credits"].model_fields
    each = 2 * fields["database_connections"].default + 2
    for name in DATABASE_WORKLOADS:
        most = max(
            manifests.named("Deployment", name)["spec"].get("replicas", 1),
            *(
                one["spec"]["maxReplicas"]
                for one in manifests.of("HorizontalPodAutoscaler")
                if one["spec"]["scaleTargetRef"]["name"] == name
            ),
            1,
        )
        parameters = manifests.named("Cluster", f"{name}-db")["spec"]["postgresql"]["parameters"]
        if (most + 1) * each + 10 > int(parameters["max_connections"]):
            yield f"{name}: {most} replicas take more connections than there are"


def _container(manifests: Manifests, name: str) -> Object:
    spec = manifests.named("Deployment", name)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert isinstance(container, dict)
    return container


EVERYWHERE: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        rollout, spread, disruption, probes, security, resources, secrets, services, leaving,
        selectors, images, migrations, connections,
    )
}  # fmt: skip
"""Rules that hold in every overlay."""
IN_PRODUCTION: dict[str, Rule] = EVERYWHERE | {"replicas": replicas, "scaling": scaling}
"""Those, and what only many machines can have."""
