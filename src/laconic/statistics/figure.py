"""The figure of an inspection, as SVG."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError
from laconic.statistics.inspection import Inspection, InspectionRow

Value = Callable[[InspectionRow], Mapping[str, float | None]]


def write_figure(inspection: Inspection, path: str | Path) -> Path:
    """Draw an inspection's decoder layers: one panel per quantity that it has, a line per module.

    The same inspection always gives the same bytes. Raises LaconicError when matplotlib is not
    installed or the file cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        raise LaconicError("the figure needs matplotlib: pip install matplotlib") from None
    panels = {title: lines for title, lines in _panels(inspection).items() if lines}
    with matplotlib.rc_context({"svg.hashsalt": "laconic"}):
        figure = Figure(figsize=(9, 3 * max(len(panels), 1)), layout="constrained")
        FigureCanvasSVG(figure)
        for index, (title, lines) in enumerate(panels.items(), 1):
            _draw(figure.add_subplot(len(panels), 1, index), title, lines)
        try:
            figure.savefig(Path(path), format="svg", metadata={"Date": None})
        except OSError as error:
            raise LaconicError(f"{path}: cannot be written: {error.strerror}") from error
    return Path(path)


def _panels(inspection: Inspection) -> dict[str, dict[str, list[tuple[int, float]]]]:
    quantities: dict[str, Value] = {
        "norm of delta / norm of base": lambda row: row.delta,
        "cosine of task vectors": lambda row: row.cosine,
        "share of energy in the top 10% of singular values": lambda row: row.top_energy,
        "coefficient of the step from the base": lambda row: row.coefficients,
    }
    return {title: _lines(inspection, value) for title, value in quantities.items()}


def _lines(inspection: Inspection, value: Value) -> dict[str, list[tuple[int, float]]]:
    lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in inspection.rows:
        if row.layer >= 0:
            for name, number in value(row).items():
                if number is not None:
                    lines[f"{name}: {row.module}"].append((row.layer, number))
    return lines


def _draw(axes: Any, title: str, lines: Mapping[str, list[tuple[int, float]]]) -> None:
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker=".", linewidth=1, label=name)
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("layer", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=5, ncol=2, loc="center left", bbox_to_anchor=(1, 0.5))
