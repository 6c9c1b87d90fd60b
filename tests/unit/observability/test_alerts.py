"""Each alert is tested both ways, says what to do, and looks at measures that there are."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.observability import product_alerts, rules
from deploy.observability.alerting import Alert, Severity
from deploy.observability.presence_alerts import WATCHDOG, missing_measures
from services.runtime.measures import DECLARED, PREFIX

ROOT = Path(__file__).parents[3]
ALERTS = [alert for alerts in rules.GROUPS.values() for alert in alerts]
HEADINGS = [
    "What it means",
    "What users see",
    "First look",
    "Remedy",
    "Proof that it is over",
]
RUNBOOKS = ROOT / "deploy" / "runbooks"
ALERTMANAGER: Any = yaml.safe_load(
    (ROOT / "deploy/observability/alertmanager/alertmanager.yml").read_text()
)
DOWN = 'alertname = "ServiceDown"'
EXPRESSIONS = {
    f"{path.stem}: {rule.get('alert') or rule['record']}": rule["expr"]
    for path in sorted((ROOT / "deploy/observability/prometheus/rules").glob("*.yaml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
}


def named(alert: Alert) -> str:
    return alert.name


def test_files_are_what_their_program_writes() -> None:
    stale = [path.name for path, text in rules.files().items() if path.read_text() != text]

    assert not stale, "run `python -m deploy.observability.rules`"


def test_names_are_used_once() -> None:
    names = [alert.name for alert in ALERTS]

    assert len(names) == len(set(names)) > 30


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_each_alert_is_seen_firing_and_silent(alert: Alert) -> None:
    for severity in alert.conditions:
        firing = {severity in case.fires for case in alert.cases}

        # What says that alerts are delivered is never silent.
        assert firing == ({True} if alert is WATCHDOG else {True, False})


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_what_fires_at_work_and_at_night_is_seen_to_differ(alert: Alert) -> None:
    fired = {frozenset(case.fires) for case in alert.cases}

    if set(alert.conditions) == set(Severity):
        assert len(fired) >= 3


@pytest.mark.parametrize("alert", ALERTS, ids=named)
def test_each_alert_has_a_runbook_of_five_parts(alert: Alert) -> None:
    text = (RUNBOOKS / f"{alert.name}.md").read_text()
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)

    assert text.startswith(f"# {alert.name}\n")
    assert parts[1::2] == HEADINGS
    assert all(len(part.strip()) >= len("Nothing.") for part in parts[2::2])


def test_each_runbook_has_an_alert() -> None:
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}

    assert pages == {alert.name for alert in ALERTS}


def test_rules_lead_to_their_runbooks() -> None:
    for text in rules.files().values():
        for group in yaml.safe_load(text).get("groups", ()):
            for rule in filter(lambda rule: "alert" in rule, group["rules"]):
                url = rule["annotations"]["runbook_url"]

                assert url == f"{rules.RUNBOOKS}{rule['alert']}.md"
                assert rule["labels"]["severity"] in set(Severity)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_rules_look_at_measures_that_are_declared(name: str) -> None:
    used = {
        re.sub(r"_(bucket|sum|count)$", "", found)
        for found in re.findall(rf"\b{PREFIX}(\w+)", EXPRESSIONS[name])
    }

    assert used <= set(DECLARED)


def test_page_and_ticket_are_told_whom_they_are_about() -> None:
    by_series = {alert.name for alert in ALERTS if not alert.job}

    assert all(
        re.search(r"by \(job\b|^up|absent\(", condition.expression)
        for alert in ALERTS
        if alert.name in by_series
        for condition in alert.conditions.values()
    )


def test_a_measure_that_is_shown_always_is_missed() -> None:
    missing = missing_measures(["max(reelworks_webhook_dead) > 0"])

    (condition,) = missing.conditions.values()
    assert 'absent(reelworks_webhook_dead{job="webhook"})' in condition.expression


def test_a_measure_that_shows_nothing_at_first_is_not_missed() -> None:
    texts = ["reelworks_webhook_dead", "sum(reelworks_webhook_requests_total)"]

    (condition,) = missing_measures(texts).conditions.values()

    assert "webhook_requests_total" not in condition.expression


def test_alertmanager_sends_to_receivers_that_there_are() -> None:
    receivers = {receiver["name"] for receiver in ALERTMANAGER["receivers"]}
    routes = {route["receiver"] for route in ALERTMANAGER["route"]["routes"]}

    assert routes == receivers == {"page", "ticket", "heartbeat"}


def test_a_service_that_is_down_hushes_its_objectives() -> None:
    rules_of_down = [
        rule for rule in ALERTMANAGER["inhibit_rules"] if DOWN in rule["source_matchers"]
    ]

    assert any(
        rule["target_matchers"] == ['objective =~ ".+"'] and rule["equal"] == ["job"]
        for rule in rules_of_down
    )


def test_what_is_wrong_with_money_is_told_whatever_else_is_down() -> None:
    hushed = {
        name
        for rule in ALERTMANAGER["inhibit_rules"]
        if DOWN in rule["source_matchers"]
        for matcher in rule["target_matchers"]
        if matcher.startswith("alertname")
        for name in re.findall(r"\w+", matcher.split("=~")[1])
    }

    assert hushed <= {alert.name for alert in ALERTS}
    assert not hushed & {alert.name for alert in product_alerts.ALERTS}
    assert not hushed & {"WebhooksDead", "WebhooksWait", "LedgerNotVerified", "Watchdog"}


def test_secrets_of_alertmanager_are_files() -> None:
    text = (ROOT / "deploy/observability/alertmanager/alertmanager.yml").read_text()

    secrets = re.findall(
        r"^\s*-?\s*(\w*(?:key|token|password|secret|credentials)\w*):", text, re.MULTILINE
    )
    assert secrets
    assert all(name.endswith("_file") for name in secrets)
