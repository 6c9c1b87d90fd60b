"""The collector's file names only what it defines, in the order in which it must be."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
FILE: Any = yaml.safe_load((ROOT / "deploy/observability/otel/collector.yaml").read_text())
PIPELINES: Any = FILE["service"]["pipelines"]


def test_there_is_a_pipeline_of_traces() -> None:
    assert "traces" in PIPELINES


def test_pipelines_are_made_of_what_is_defined() -> None:
    for pipeline in PIPELINES.values():
        for kind in ("receivers", "processors", "exporters"):
            assert pipeline[kind]
            assert set(pipeline[kind]) <= set(FILE[kind])
    assert set(FILE["service"]["extensions"]) <= set(FILE["extensions"])


def test_what_is_defined_is_used() -> None:
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in PIPELINES.values() for name in pipeline[kind]}

        assert used == set(FILE[kind])


def test_the_limit_of_memory_stands_first_and_the_batch_last() -> None:
    for pipeline in PIPELINES.values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert pipeline["processors"][-1] == "batch"


def test_what_waits_is_bounded() -> None:
    limiter, batch = FILE["processors"]["memory_limiter"], FILE["processors"]["batch"]

    assert 0 < limiter["spike_limit_percentage"] < limiter["limit_percentage"] < 100
    assert 0 < batch["send_batch_size"] <= batch["send_batch_max_size"]
    for exporter in FILE["exporters"].values():
        assert exporter["sending_queue"]["queue_size"] > 0
        assert exporter["retry_on_failure"]["max_elapsed_time"] != "0"


def test_addresses_of_others_come_from_the_environment() -> None:
    for exporter in FILE["exporters"].values():
        assert exporter["endpoint"].startswith("${env:")
        assert "headers" not in exporter, "tokens belong into an extension that reads a file"
