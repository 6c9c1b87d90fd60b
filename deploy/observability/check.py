"""Checks all of this folder: `python -m deploy.observability.check`, part of `make deploy-lint`.

Generated files are what their programs write; every expression of rules, dashboards and runbooks
parses, and uses only measures that the services declare, with their labels; Prometheus and
Alertmanager take their files; each alert fires and is silent as its cases say.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import promql_parser
import yaml

from services.runtime.measures import DECLARED, PREFIX, Kind

__all__ = ["complaints", "expressions", "main"]

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]

_SCRAPE = frozenset({"job", "instance"})
"""Labels that Prometheus gives to all that it reads."""
_FOREIGN: Mapping[str, frozenset[str]] = {
    "up": _SCRAPE,
    "process_cpu_seconds_total": _SCRAPE,
    "process_resident_memory_bytes": _SCRAPE,
    "process_start_time_seconds": _SCRAPE,
    "prometheus_rule_evaluation_failures_total": _SCRAPE | {"rule_group"},
    # Of CloudNativePG, whose databases have the name of their cluster for a job.
    "cnpg_collector_pg_wal_archive_status": _SCRAPE | {"value"},
    "cnpg_pg_stat_archiver_last_archived_time": _SCRAPE,
    "cnpg_pg_stat_archiver_last_failed_time": _SCRAPE,
    # Of its plugin for backups.
    "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp": _SCRAPE,
    "ALERTS": _SCRAPE | {"alertname"},
}
"""Measures that are not of our making, and their labels."""
_WRONG = (
    "sum(rate(reelworks_webhook_requests_total[5m])",
    "max(reelworks_surprises)",
    "max(reelworks_webhook_dead_count)",
    "max(cnpg_collector_last_available_backup_timestamp)",
    'sum(rate(reelworks_webhook_requests_total{status="200"}[5m]))',
    "sum by (status) (rate(reelworks_webhook_requests_total[5m]))",
    'rate(reelworks_webhook_ack_seconds_bucket{le="1.5"}[5m])',
)
"""What the check of expressions must complain about, or it is none."""
_COMMANDS = (
    (sys.executable, "-m", "deploy.observability.rules", "--check"),
    (sys.executable, "-m", "deploy.observability.dashboards", "--check"),
    ("promtool", "check", "config", "deploy/observability/prometheus/prometheus.yml"),
    ("promtool", "test", "rules", "deploy/observability/prometheus/tests/*.yaml"),
    ("amtool", "check-config", "deploy/observability/alertmanager/alertmanager.yml"),
)


def expressions() -> Iterator[tuple[str, str]]:
    """Yields (where, PromQL) of each rule, each panel and each query of a runbook."""
    for path in sorted((FOLDER / "prometheus" / "rules").glob("*.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                name = rule.get("alert") or rule["record"]
                yield f"{path.name}: {name}", rule["expr"]
    for path in sorted((FOLDER / "grafana" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", ()):
                # Grafana fills it in.
                expression = target["expr"].replace("$__rate_interval", "5m")
                yield f"{path.name}: {panel['title']}", expression
    for path in sorted((ROOT / "deploy" / "runbooks").glob("*.md")):
        for query in re.findall(r"```promql\n(.*?)\n```", path.read_text(), re.DOTALL):
            yield path.name, query


def complaints(where: str, expression: str, recorded: frozenset[str]) -> Iterator[str]:
    """Yields what is wrong with an expression; `recorded` are the names that rules compute."""
    try:
        tree = promql_parser.parse(expression)
    except ValueError as error:
        yield f"{where}: {error}"
        return
    selectors: list[promql_parser.VectorSelector] = []
    _collect(tree, selectors)
    groupings: set[str] = set()
    known: set[str] = set(_SCRAPE)
    _collect_groupings(expression, groupings)
    for selector in selectors:
        labels = _labels(selector.name, recorded)
        if labels is None:
            yield f"{where}: {selector.name} is not declared"
            continue
        known |= labels
        for matcher in selector.matchers.matchers:
            if matcher.name not in labels:
                yield f"{where}: {selector.name} has no label {matcher.name}"
            yield from _no_bucket(where, selector.name, matcher)
    # What `label_replace` makes may be grouped by too, but no rule does.
    for label in sorted(groupings - known):
        yield f"{where}: nothing in it has a label {label}"


def main() -> None:
    """Runs all checks, and exits with 1 if one fails."""
    missing = {name for name, *_ in _COMMANDS if shutil.which(name) is None}
    if missing:
        sys.exit(
            f"{' and '.join(sorted(missing))}: apt-get install prometheus prometheus-alertmanager"
        )
    recorded = _recorded()
    unseen = [bad for bad in _WRONG if not list(complaints("control", bad, recorded))]
    if unseen:
        sys.exit(f"nothing is said against {unseen}, which is wrong")
    all_of_them = list(expressions())
    wrong = [text for one in all_of_them for text in complaints(*one, recorded)]
    for text in wrong:
        print(text, file=sys.stderr)
    failed = [command for command in _COMMANDS if not _succeeds(command)]
    if wrong or failed:
        sys.exit(1)
    print(f"{len(all_of_them)} expressions are good")


def _recorded() -> frozenset[str]:
    """Returns the names that rules compute."""
    return frozenset(
        rule["record"]
        for path in (FOLDER / "prometheus" / "rules").glob("*.yaml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    )


def _collect(tree: object, found: list[promql_parser.VectorSelector]) -> None:
    if isinstance(tree, promql_parser.VectorSelector):
        found.append(tree)
        return
    if isinstance(tree, promql_parser.MatrixSelector):
        found.append(tree.vector_selector)
        return
    for name in ("lhs", "rhs", "expr", "param"):
        below = getattr(tree, name, None)
        if below is not None:
            _collect(below, found)
    for below in getattr(tree, "args", ()) or ():
        _collect(below, found)


def _collect_groupings(expression: str, found: set[str]) -> None:
    for names in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        found |= {name.strip() for name in names.split(",")} - {"", "le"}


def _labels(series: str, recorded: frozenset[str]) -> frozenset[str] | None:
    """Returns the labels that a series has, None if nobody shows it."""
    if series in recorded:
        return frozenset({"objective"})
    if series in _FOREIGN:
        return _FOREIGN[series]
    name = series.removeprefix(PREFIX)
    if name != series and name in DECLARED and DECLARED[name].kind is not Kind.HISTOGRAM:
        return frozenset(DECLARED[name].labels) | _SCRAPE
    base, _, suffix = name.rpartition("_")
    measure = DECLARED.get(base)
    if measure is None or measure.kind is not Kind.HISTOGRAM:
        return None
    if suffix not in ("bucket", "sum", "count"):
        return None
    return frozenset(measure.labels) | _SCRAPE | ({"le"} if suffix == "bucket" else set())


def _no_bucket(where: str, series: str, matcher: promql_parser.Matcher) -> Iterator[str]:
    """Yields that there is no such bucket, if one is chosen that the histogram does not have."""
    if matcher.name != "le":
        return
    base = series.removeprefix(PREFIX).removesuffix("_bucket")
    if matcher.value not in {str(float(bound)) for bound in DECLARED[base].buckets}:
        yield f"{where}: {series} has no bucket {matcher.value}"


def _succeeds(command: tuple[str, ...]) -> bool:
    arguments = [
        str(found)
        for argument in command
        for found in (sorted(ROOT.glob(argument)) if "*" in argument else (argument,))
    ]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{' '.join(command)}\n{done.stdout}{done.stderr}", file=sys.stderr)
    return done.returncode == 0


if __name__ == "__main__":
    main()
