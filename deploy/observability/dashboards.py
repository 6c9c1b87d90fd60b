"""Writes Grafana's dashboards: `python -m deploy.observability.dashboards`.

With `--check` it writes nothing, and fails if a file is not what it would write.
"""

import json
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    GraphGradientMode,
    GraphTresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
)

from deploy.observability.boards import door, promise, services, studio, work
from deploy.observability.files import write_or_check
from deploy.observability.panels import Board, Panel

__all__ = ["BOARDS", "files"]

FOLDER = Path(__file__).parent / "grafana" / "dashboards"
SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
BOARDS = (promise.BOARD, work.BOARD, door.BOARD, studio.BOARD, services.BOARD)
NUMBER_HEIGHT, GRAPH_HEIGHT = 4, 8


def files() -> dict[Path, str]:
    """Returns the text of each file."""
    return {FOLDER / f"{board.name}.json": _text(board) for board in BOARDS}


def _text(board: Board) -> str:
    built = (
        dashboard.Dashboard(board.title)
        .uid(f"reelworks-{board.name}")
        .description(board.says)
        .tags(["reelworks"])
        .readonly()
        .timezone("utc")
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Reelworks")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["reelworks"])
            .as_dropdown(True)
            .keep_time(True)
        )
    )
    number = 0
    for row in board.rows:
        number += 1
        built = built.with_row(dashboard.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            built = built.with_panel(_panel(panel, number))
    return json.dumps(built.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _panel(panel: Panel, number: int) -> stat.Panel | timeseries.Panel:
    is_number = panel.kind == "number"
    built = _number() if is_number else _graph(panel)
    built = (
        built.id(number)
        .title(panel.title)
        .description(panel.says)
        .datasource(SOURCE)
        .unit(panel.unit)
        .span(panel.width)
        .height(NUMBER_HEIGHT if is_number else GRAPH_HEIGHT)
    )
    if panel.red_above is not None or panel.red_below is not None:
        built = built.thresholds(_thresholds(panel))
    for place, (expression, legend) in enumerate(panel.queries):
        query = (
            prometheus.Dataquery()
            .ref_id(chr(ord("A") + place))
            .datasource(SOURCE)
            .expr(expression)
            .legend_format(legend or panel.title)
        )
        built = built.with_target(query.instant() if is_number else query.range())
    return built


def _number() -> stat.Panel:
    return stat.Panel().color_mode(BigValueColorMode.BACKGROUND).no_value("none yet")


def _graph(panel: Panel) -> timeseries.Panel:
    is_stacked = panel.kind == "stacked"
    built = (
        timeseries.Panel()
        .min(0)
        .line_width(1)
        .fill_opacity(60 if is_stacked else 10)
        .gradient_mode(GraphGradientMode.NONE)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        )
    )
    if is_stacked:
        built = built.stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if panel.red_above is not None or panel.red_below is not None:
        built = built.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(GraphTresholdsStyleMode.DASHED)
        )
    return built


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    if panel.red_below is not None:
        steps = [
            Threshold(value=None, color="red"),
            Threshold(value=panel.red_below, color="green"),
        ]
    else:
        steps = [
            Threshold(value=None, color="green"),
            Threshold(value=panel.red_above, color="red"),
        ]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


if __name__ == "__main__":
    write_or_check(files())
