"""The configuration for three machines is complete, explained, and keeps what it promises."""

import re
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "patroni"
FILES = ("etcd.yaml", "patroni.yaml", "haproxy.cfg")


def words_in(name: str) -> set[str]:
    return set(Template((FOLDER / name).read_text()).get_identifiers())


def dynamic() -> dict[str, Any]:
    """Returns what all nodes agree on."""
    values: dict[str, Any] = yaml.safe_load((FOLDER / "patroni.yaml").read_text())
    settings: dict[str, Any] = values["bootstrap"]["dcs"]
    return settings


@pytest.mark.parametrize("name", FILES)
def test_each_word_to_fill_in_is_explained(name: str) -> None:
    explained = set(re.findall(r"`([a-z_]+)`", (FOLDER / "README.md").read_text()))

    assert words_in(name)
    assert words_in(name) <= explained


def test_nothing_is_acknowledged_that_only_the_primary_has() -> None:
    settings = dynamic()

    assert settings["synchronous_mode"] == "quorum"
    assert settings["synchronous_node_count"] >= 1
    assert settings["synchronous_mode_strict"] is True
    assert settings["postgresql"]["parameters"]["synchronous_commit"] == "on"


def test_a_primary_steps_down_before_another_may_take_over() -> None:
    settings = dynamic()

    assert settings["loop_wait"] + 2 * settings["retry_timeout"] <= settings["ttl"]


def test_a_dead_primary_is_replaced_within_the_time_that_writes_may_be_away() -> None:
    """The key runs out, the watchers see it at once, and HAProxy looks each second, twice."""
    assert dynamic()["ttl"] + 2 <= 30 - 5


def test_there_are_connections_for_the_replicas_that_are_planned() -> None:
    """Of credits, generation and webhook three, two and two, each with two pools and a scanner."""
    connections = (3 + 2 + 2) * (10 + 10 + 2)

    assert connections < dynamic()["postgresql"]["parameters"]["max_connections"] - 10


def test_connections_to_a_former_primary_are_cut() -> None:
    settings = (FOLDER / "haproxy.cfg").read_text()
    primary = settings[settings.index("listen primary") : settings.index("listen standbys")]

    assert "/primary" in primary
    assert "on-marked-down shutdown-sessions" in primary
