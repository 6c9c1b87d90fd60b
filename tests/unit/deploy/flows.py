"""Who may speak to whom, as network policies say it: a flow is (from, to, port)."""

import ipaddress
from collections.abc import Iterator

from tests.unit.deploy.manifests import DATABASE_WORKLOADS, NAME, Manifests, Object

Flow = tuple[str, str, int]
NAMESPACE = "kubernetes.io/metadata.name"
PRIVATE = tuple(
    map(
        ipaddress.ip_network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8",
         "169.254.0.0/16", "fc00::/7", "fe80::/10", "::1/128"),
    )
)  # fmt: skip
OUTSIDERS = {
    ((("reelworks/edge", "true"),), ()): "edge",
    (((NAMESPACE, "kube-system"),), (("k8s-app", "kube-dns"),)): "dns",
    (((NAMESPACE, "observability"),), ((NAME, "prometheus"),)): "prometheus",
    (((NAMESPACE, "observability"),), ((NAME, "otel-collector"),)): "collector",
    (((NAMESPACE, "cnpg-system"),), ((NAME, "cloudnative-pg"),)): "database operator",
}
"""Who is not of this namespace, by what selects it."""
RESOLVERS = {"169.254.20.10/32": "dns of the node", "169.254.169.254/32": "dns of the cloud"}
"""Who resolves names without being a pod: NodeLocal DNSCache, and some clouds' own."""

_SERVICES = ("credits", "generation", "webhook", "web")
_DATABASES: set[Flow] = {
    (client, f"{name}-db", 5432)
    for name in DATABASE_WORKLOADS
    for client in (name, f"{name}-migration")
}
_BETWEEN_DATABASES: set[Flow] = {
    flow
    for name in DATABASE_WORKLOADS
    for port in (5432, 8000)
    for flow in (
        (f"{name}-db", f"{name}-db", port),
        ("database operator", f"{name}-db", port),
    )
} | {
    flow
    for name in DATABASE_WORKLOADS
    for flow in (
        ("prometheus", f"{name}-db", 9187),
        (f"{name}-db", "cluster API", 443),
        (f"{name}-db", "cluster API", 6443),
    )
}
_ALWAYS: set[Flow] = {
    ("edge", "webhook", 8080),
    ("edge", "web", 8080),
    ("web", "credits", 50051),
    ("web", "generation", 50051),
    ("generation", "credits", 50051),
    ("webhook", "generation", 50051),
    # Replicate, its files, and object storage.
    ("generation", "internet", 443),
    *(("prometheus", name, 9464) for name in _SERVICES),
    ("all", "dns", 53),
    *(("all", name, 53) for name in RESOLVERS.values()),
    *(("operator", name, 50051) for name in DATABASE_WORKLOADS),
}
FLOWS: dict[str, set[Flow]] = {
    "production": _ALWAYS
    | _DATABASES
    | _BETWEEN_DATABASES
    # The sign-in server, and backups.
    | {("web", "internet", 443), *((f"{name}-db", "internet", 443) for name in DATABASE_WORKLOADS)}
    | {(name, "collector", 4318) for name in _SERVICES},
    "development": _ALWAYS
    | _DATABASES
    | _BETWEEN_DATABASES
    | {
        ("generation", "simulator", 8090),
        ("generation", "simulator", 8091),
        ("webhook", "simulator", 8090),
        ("simulator", "webhook", 8080),
    },
}
"""All flows of an overlay."""


def closed(manifests: Manifests) -> Iterator[str]:
    """Complains if anything is open that no policy names."""
    everything = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if everything not in [one["spec"] for one in manifests.of("NetworkPolicy")]:
        yield "not everything is closed by default"
    for policy in manifests.of("NetworkPolicy"):
        name = policy["metadata"]["name"]
        for kind, key in (("ingress", "from"), ("egress", "to")):
            rules = policy["spec"].get(kind, ())
            if rules and kind.capitalize() not in policy["spec"]["policyTypes"]:
                yield f"{name}: its {kind} does nothing"
            for rule in rules:
                if not rule.get(key) or not rule.get("ports"):
                    yield f"{name}: {kind} to anybody, or at any port"
                if any(not peer or {} in peer.values() for peer in rule.get(key) or ()):
                    yield f"{name}: {kind} for everybody"
                if any("endPort" in port for port in rule.get("ports") or ()):
                    yield f"{name}: {kind} at many ports"


def flows(manifests: Manifests) -> tuple[set[Flow], set[Flow]]:
    """Returns what flows, and what only one of two ends allows."""
    own = manifests.matching({})
    sent: set[Flow] = set()
    taken: set[Flow] = set()
    for policy in manifests.of("NetworkPolicy"):
        spec = policy["spec"]
        selected = {"all"} if not spec["podSelector"] else manifests.matching(spec["podSelector"])
        for rule in spec.get("egress", ()):
            ends = _ends(manifests, rule["to"])
            sent |= {(one, end, port) for one in selected for end in ends for port in _ports(rule)}
        for rule in spec.get("ingress", ()):
            ends = _ends(manifests, rule["from"])
            taken |= {(end, one, port) for one in selected for end in ends for port in _ports(rule)}
    inside = {(a, b, port) for a, b, port in sent | taken if a in own and b in own}
    outside = (sent | taken) - inside
    return (sent & taken & inside) | outside, (sent ^ taken) & inside


def _ports(rule: Object) -> set[int]:
    return {port["port"] for port in rule["ports"]}


def _ends(manifests: Manifests, peers: list[Object]) -> set[str]:
    ends: set[str] = set()
    for peer in peers:
        if "ipBlock" in peer:
            ends.add(_block(peer["ipBlock"]))
        elif "namespaceSelector" in peer:
            parts = (peer["namespaceSelector"], peer.get("podSelector", {}))
            key = tuple(tuple(part.get("matchLabels", {}).items()) for part in parts)
            ends.add(OUTSIDERS.get((key[0], key[1]), f"unknown {key}"))
        else:
            ends |= manifests.matching(peer["podSelector"])
    return ends


def _block(block: Object) -> str:
    """Returns `internet` for a block without anything near, `cluster API` for near ones."""
    if block["cidr"] in RESOLVERS:
        return RESOLVERS[block["cidr"]]
    network = ipaddress.ip_network(block["cidr"])
    holes = [ipaddress.ip_network(one) for one in block.get("except", ())]
    near = [one for one in PRIVATE if one.version == network.version and one.overlaps(network)]
    if all(any(_within(one, hole) for hole in holes) for one in near):
        return "internet"
    if any(_within(network, one) for one in near):
        return "cluster API"
    return f"unknown {block['cidr']}"


def _within(
    one: ipaddress.IPv4Network | ipaddress.IPv6Network,
    other: ipaddress.IPv4Network | ipaddress.IPv6Network,
) -> bool:
    return (
        one.version == other.version
        and one.network_address in other
        and one.broadcast_address in other
    )
