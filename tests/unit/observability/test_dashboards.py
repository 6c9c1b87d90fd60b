"""The dashboards are laid out well, and show measures that there are."""

import importlib.util
import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from services.runtime.measures import DECLARED, PREFIX

FOLDER = Path(__file__).parents[3] / "deploy/observability/grafana/dashboards"
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
COLUMNS = 24
OF_NO_SCALE = {"none"}

boards = pytest.mark.parametrize("name", BOARDS)


def panels(name: str) -> list[dict[str, Any]]:
    """Returns what shows something: rows are only titles."""
    return [panel for panel in BOARDS[name]["panels"] if panel["type"] != "row"]


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


def test_there_are_five() -> None:
    assert set(BOARDS) == {"promise", "work", "door", "studio", "services"}


@boards
def test_panels_lie_side_by_side(name: str) -> None:
    places = [panel["gridPos"] for panel in BOARDS[name]["panels"]]

    assert not [pair for pair in combinations(places, 2) if overlap(*pair)]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= COLUMNS for place in places)


@boards
def test_lines_of_panels_are_full(name: str) -> None:
    lines: dict[int, int] = {}
    for panel in BOARDS[name]["panels"]:
        lines[panel["gridPos"]["y"]] = lines.get(panel["gridPos"]["y"], 0) + panel["gridPos"]["w"]

    assert set(lines.values()) == {COLUMNS}


@boards
def test_panels_have_ids_titles_words_and_units(name: str) -> None:
    shown = panels(name)
    ids = [panel["id"] for panel in BOARDS[name]["panels"]]

    assert len(ids) == len(set(ids))
    for panel in shown:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]


@boards
def test_panels_have_what_their_kind_needs(name: str) -> None:
    for panel in panels(name):
        targets = panel["targets"]

        assert targets
        assert len({target["refId"] for target in targets}) == len(targets)
        for target in targets:
            assert target["legendFormat"]
            assert target["instant"] == (panel["type"] == "stat")
            # A curve that is named by a label has that label.
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), panel["title"]


@boards
def test_panels_show_measures_that_are_declared(name: str) -> None:
    text = " ".join(target["expr"] for panel in panels(name) for target in panel["targets"])
    used = {
        re.sub(r"_(bucket|sum|count)$", "", found)
        for found in re.findall(rf"\b{PREFIX}(\w+)", text)
    }

    assert used
    assert used <= set(DECLARED)


def test_every_measure_is_shown_somewhere() -> None:
    text = json.dumps(BOARDS)
    # What only alerts look at.
    unseen = {name for name in DECLARED if not re.search(rf"\b{PREFIX}{name}(_|\b)", text)}

    assert unseen <= {"transactions_total", "reservations_open"}


@boards
def test_dashboards_lead_to_each_other(name: str) -> None:
    assert BOARDS[name]["uid"] == f"reelworks-{name}"
    assert BOARDS[name]["links"][0]["tags"] == BOARDS[name]["tags"] == ["reelworks"]


def test_files_are_what_their_program_writes() -> None:
    if importlib.util.find_spec("grafana_foundation_sdk") is None:
        pytest.skip("`make deploy-lint` looks, where Grafana's package is installed")
    from deploy.observability import dashboards

    assert {path.stem: json.loads(text) for path, text in dashboards.files().items()} == BOARDS
