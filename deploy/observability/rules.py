"""Writes Prometheus' rules and promtool's tests of them: `python -m deploy.observability.rules`.

With `--check` it writes nothing, and fails if a file is not what it would write.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from deploy.observability import (
    database_alerts,
    objectives,
    presence_alerts,
    product_alerts,
    webhook_alerts,
)
from deploy.observability.alerting import Alert, Case, Severity
from deploy.observability.files import write_or_check

__all__ = ["GROUPS", "RUNBOOKS", "files"]

FOLDER = Path(__file__).parent / "prometheus"
KUBERNETES = Path(__file__).parent / "kubernetes" / "rules.yaml"
"""The same rules, for the operator of Prometheus."""
RUNBOOKS = "https://reelworks.example.com/runbooks/"
"""Where the files of deploy/runbooks are published."""
DOLLARS_PER_CREDIT = 0.1
"""What a credit is sold for."""
LONG = ("2h", "6h", "1d", "3d")
"""Windows that are computed less often, since they cost more and change less."""

HEAD = """\
# Written by `python -m deploy.observability.rules`, which CI runs again: do not edit.
# yamllint disable rule:line-length
---
"""

_OBJECTIVES = tuple(objectives.alert(one) for one in objectives.OBJECTIVES)
_OTHERS = (*product_alerts.ALERTS, *webhook_alerts.ALERTS, *presence_alerts.ALERTS)
_MEASURING = (
    *(condition.expression for alert in _OTHERS for condition in alert.conditions.values()),
    *(one.events for one in objectives.OBJECTIVES),
)
"""All expressions that alerts rest on and that name measures."""

GROUPS: Mapping[str, Sequence[Alert]] = {
    "objectives": _OBJECTIVES,
    "product": product_alerts.ALERTS,
    "webhooks": webhook_alerts.ALERTS,
    "databases": database_alerts.ALERTS,
    "presence": (
        *presence_alerts.ALERTS,
        presence_alerts.missing_measures(_MEASURING),
        presence_alerts.WATCHDOG,
    ),
}
"""All alerts, by the file that they stand in."""


class _Text(str):
    """Text that stands in lines of its own if it has several."""

    __slots__ = ()


class _Writer(yaml.SafeDumper):
    """Writes YAML as people do."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)


def _write_text(writer: _Writer, text: _Text) -> yaml.Node:
    style = "|" if "\n" in text else None
    return writer.represent_scalar("tag:yaml.org,2002:str", str(text), style=style)


_Writer.add_representer(_Text, _write_text)


def files() -> dict[Path, str]:
    """Returns the text of each file."""
    found: dict[Path, Any] = {
        FOLDER / "rules" / f"{file}.yaml": {"groups": groups} for file, groups in _RECORDED.items()
    }
    for name, alerts in GROUPS.items():
        rules = [rule for alert in alerts for rule in _rules(alert)]
        needed = _NEEDED.get(name, ())
        found[FOLDER / "rules" / f"{name}.yaml"] = {"groups": [{"name": name, "rules": rules}]}
        found[FOLDER / "tests" / f"{name}.yaml"] = {
            "rule_files": [*(f"../rules/{file}.yaml" for file in needed), f"../rules/{name}.yaml"],
            "evaluation_interval": "30m" if name == "objectives" else "1m",
            "group_eval_order": [group["name"] for file in needed for group in _RECORDED[file]]
            + [name],
            "tests": [_test(alert, case) for alert in alerts for case in alert.cases],
        }
    found[KUBERNETES] = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "reelworks"},
        "spec": {
            "groups": [
                group
                for path, content in found.items()
                if path.parent.name == "rules"
                for group in content["groups"]
            ]
        },
    }
    return {path: _yaml(content) for path, content in found.items()}


def _group(objective: objectives.Objective, is_long: bool) -> dict[str, Any]:
    """Returns the recordings of an objective; those of long windows are computed less often."""
    rules = [
        {"record": record, "expr": _Text(expression), "labels": {"objective": objective.name}}
        for record, expression in objectives.recordings(objective)
        if record.endswith(LONG) == is_long
    ]
    name = f"objective-{objective.name}"
    # Below the 5 minutes for which Prometheus takes a value for the present one.
    return (
        {"name": f"{name}-long", "interval": "3m", "rules": rules}
        if is_long
        else {"name": name, "rules": rules}
    )


_RECORDED: Mapping[str, Sequence[dict[str, Any]]] = {
    "recordings": [
        _group(one, is_long) for one in objectives.OBJECTIVES for is_long in (False, True)
    ],
    "prices": [
        {
            "name": "prices",
            "rules": [
                {"record": "reelworks:dollars_per_credit", "expr": f"vector({DOLLARS_PER_CREDIT})"}
            ],
        }
    ],
}
"""What is computed before alerts look at it, by file."""
_NEEDED: Mapping[str, Sequence[str]] = {"objectives": ("recordings",), "product": ("prices",)}
"""The files of `_RECORDED` that the alerts of a file look at."""


def _rules(alert: Alert) -> Iterable[dict[str, Any]]:
    for severity, condition in alert.conditions.items():
        rule: dict[str, Any] = {"alert": alert.name, "expr": _Text(condition.expression)}
        if condition.for_ != "0m":
            rule["for"] = condition.for_
        yield {**rule, "labels": _labels(alert, severity), "annotations": _annotations(alert)}


def _labels(alert: Alert, severity: Severity) -> dict[str, str]:
    return {"severity": severity.value} | ({"job": alert.job} if alert.job else {})


def _annotations(alert: Alert) -> dict[str, str]:
    return {"summary": alert.summary, "runbook_url": f"{RUNBOOKS}{alert.name}.md"}


def _test(alert: Alert, case: Case) -> dict[str, Any]:
    expected = [
        {
            "exp_labels": {**_labels(alert, severity), **alert.labels, **labels},
            "exp_annotations": _annotations(alert),
        }
        for severity in case.fires
        for labels in case.labels
    ]
    return {
        "interval": "1m",
        "input_series": [
            {"series": series, "values": values} for series, values in case.series.items()
        ],
        "alert_rule_test": [
            {"eval_time": case.at, "alertname": alert.name, "exp_alerts": expected}
        ],
    }


def _yaml(content: Any) -> str:
    return HEAD + yaml.dump(content, Dumper=_Writer, sort_keys=False, width=1000)


if __name__ == "__main__":
    write_or_check(files())
