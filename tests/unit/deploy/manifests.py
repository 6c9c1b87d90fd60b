"""What kustomize makes of deploy/kubernetes, and how to look things up in it."""

import functools
import pickle
import subprocess
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "deploy" / "kubernetes"
NAME = "app.kubernetes.io/name"
WORKLOADS = ("credits", "generation", "webhook", "web")
DATABASE_WORKLOADS = ("credits", "generation", "webhook")
BUILD_LIMIT_S = 50
Object = dict[str, Any]


@dataclass(frozen=True)
class Manifests:
    """The objects of one overlay."""

    objects: list[Object] = field(default_factory=list)

    def of(self, kind: str) -> list[Object]:
        return [one for one in self.objects if one["kind"] == kind]

    def named(self, kind: str, name: str) -> Object:
        (found,) = [one for one in self.of(kind) if one["metadata"]["name"] == name]
        return found

    @property
    def pod_specs(self) -> Iterator[tuple[str, Object]]:
        """Yields (label name, pod spec) of deployments and jobs."""
        for one in (*self.of("Deployment"), *self.of("Job")):
            template = one["spec"]["template"]
            yield template["metadata"]["labels"][NAME], template["spec"]

    def environment(self, workload: str) -> dict[str, str]:
        """Returns what the container of a deployment finds in its environment."""
        (container,) = self.named("Deployment", workload)["spec"]["template"]["spec"]["containers"]
        found: dict[str, str] = {}
        for source in container.get("envFrom", ()):
            found |= self.named("ConfigMap", source["configMapRef"]["name"])["data"]
        return found | {one["name"]: one["value"] for one in container.get("env", ())}

    def matching(self, selector: Object) -> set[str]:
        """Returns the label names of the workloads that a selector of this namespace selects."""
        pods = [
            one["spec"]["template"]["metadata"]["labels"]
            for one in (*self.of("Deployment"), *self.of("Job"))
        ]
        pods += [{"cnpg.io/cluster": one["metadata"]["name"]} for one in self.of("Cluster")]
        return {
            labels.get(NAME) or labels["cnpg.io/cluster"]
            for labels in pods
            if selects(selector, labels)
        }


def selects(selector: Object, labels: dict[str, str]) -> bool:
    """Tells whether a label selector matches."""
    unknown = selector.keys() - {"matchLabels", "matchExpressions"}
    assert not unknown, f"a selector has {unknown}"
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] == "In", "the only operator that is used"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def manifests_of(overlay: str) -> Manifests:
    """Returns the objects of an overlay; each call gives its own, to be spoilt at will."""
    manifests = pickle.loads(_kept(overlay))  # noqa: S301  It was written below.
    assert isinstance(manifests, Manifests)
    return manifests


@functools.cache
def _kept(overlay: str) -> bytes:
    return pickle.dumps(_parsed(_build(KUBERNETES / "overlays" / overlay)))


def _build(folder: Path) -> str:
    kubectl = Path(sysconfig.get_path("scripts")) / "kubectl"
    done = subprocess.run(
        [kubectl, "kustomize", folder],
        capture_output=True, text=True, check=False, timeout=BUILD_LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def _parsed(text: str) -> Manifests:
    return Manifests(list(yaml.load_all(text, yaml.CSafeLoader)))
