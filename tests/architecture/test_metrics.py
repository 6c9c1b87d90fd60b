"""What is measured has one list, and names that rules and dashboards can rely on."""

import ast
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.exposition import generate_latest

from services.credits.metrics import CreditsMetrics
from services.generation.catalog import load_catalog
from services.generation.metrics import GenerationMetrics
from services.runtime.metrics import DECLARED, PREFIX, Kind, Metrics
from services.web.metrics import WebMetrics
from services.webhook.metrics import WebhookMetrics

ROOT = Path(__file__).parents[2]
USED = {
    argument.value
    for path in (ROOT / "services").rglob("metrics.py")
    for call in ast.walk(ast.parse(path.read_text()))
    if isinstance(call, ast.Call)
    and getattr(call.func, "attr", "") in {kind.value for kind in Kind}
    for argument in call.args
    if isinstance(argument, ast.Constant)
}
MADE_BY: dict[str, Callable[[Metrics], object]] = {
    "credits": CreditsMetrics,
    "generation": lambda metrics: GenerationMetrics(load_catalog(), metrics),
    "webhook": WebhookMetrics,
    "web": WebMetrics,
}
SERVICES = tuple(MADE_BY)
FORBIDDEN_LABELS = re.compile(r"user|generation|webhook_id|url|address|path|prompt|message")


def test_what_is_declared_is_what_services_measure() -> None:
    assert set(DECLARED) == USED


@pytest.mark.parametrize("name", DECLARED)
def test_names_say_kind_and_unit_and_labels_name_nobody(name: str) -> None:
    measure = DECLARED[name]

    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
    assert set(measure.services) <= set(SERVICES)
    assert measure.services
    assert name.endswith("_total") == (measure.kind is Kind.COUNTER)
    assert measure.help.endswith(".")
    assert not [label for label in measure.labels if FORBIDDEN_LABELS.search(label)]


def test_a_measure_of_another_kind_or_of_no_declared_name_is_refused() -> None:
    metrics = Metrics()

    with pytest.raises(ValueError, match="declared as a counter"):
        metrics.gauge("webhook_requests_total")
    with pytest.raises(KeyError):
        metrics.counter("surprises_total")


@pytest.mark.parametrize("service", SERVICES)
def test_every_declared_name_is_shown_from_the_start(service: str) -> None:
    metrics = Metrics()
    MADE_BY[service](metrics)

    shown = generate_latest(metrics.registry).decode()

    of_calls = {"rpc_server_seconds", "rpc_client_seconds"}  # They are made with their sides.
    for name, measure in DECLARED.items():
        is_shown = f"# TYPE {PREFIX}{name} {measure.kind}" in shown
        assert is_shown == (service in measure.services) or name in of_calls, name
    assert not re.search(r"_created[ {]", shown)
