"""The figures of a report: each from rows or grades to one SVG drawing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from laconic.grade.bootstrap import Array
from laconic.grade.comparisons import Interval, Row
from laconic.grade.grades import Grade
from laconic.report.svg import Frame, Scale, count, path, percent, series, tag

LETTER = 7.0
"""Width of a character of a name beside its point, in pixels, on average."""
STEPS = 120
BINS = 56


@dataclass(frozen=True)
class Lengths:
    """The lengths of a run's responses and which of them are right.

    tokens: (responses,). right: (responses,), 1 for right, 0 for wrong, NaN for not graded.
    """

    name: str
    tokens: Array
    right: Array

    @classmethod
    def of(cls, name: str, grades: Sequence[Grade]) -> Lengths:
        """Take them from a run's grades."""
        right = [np.nan if g.correct is None else float(g.correct) for g in grades]
        return cls(name, np.array([float(g.tokens) for g in grades]), np.array(right))


def accuracy_and_tokens(rows: Sequence[Row]) -> Markup:
    """Accuracy against mean tokens, with 95% intervals, one named point per run."""
    known = [(i, row) for i, row in enumerate(rows) if row.accuracy is not None]
    frame = Frame()
    x = frame.x(0.0, 1.12 * max(row.tokens_interval[1] for row in rows))
    bounds = [row.accuracy_interval or (0.0, 1.0) for _, row in known]
    y = frame.y(*_padded(bounds))
    points = {i: (x(row.tokens), y(row.accuracy or 0.0)) for i, row in known}
    bars = [_bar_box(x, y, row) for _, row in known]
    boxes = _name_places(frame, [row.name for _, row in known], list(points.values()), bars)
    marks = [
        series(i, _leader(points[i], box), _cross(x, y, row), _name(row.name, box))
        for (i, row), box in zip(known, boxes, strict=True)
    ]
    return frame.draw(
        "Accuracy against mean response length",
        frame.horizontal_axis(x, "mean tokens per response", count),
        frame.vertical_axis(y, "accuracy", percent),
        *marks,
    )


def by_group(rows: Sequence[Row], names: Sequence[str], measure: str, axis: str) -> Markup:
    """A measure, `tokens` or `reflection`, of every run in each level (or task).

    rows: of one task's levels, or of tasks. names: the runs in the order of their colours.
    """
    share = measure == "reflection"
    frame = Frame()
    places = list(dict.fromkeys(_category(row) for row in rows))
    x = frame.x(-0.5, len(places) - 0.5)
    y = frame.y(0.0, 1.0 if share else 1.08 * max(row.tokens_interval[1] for row in rows))
    lines = []
    for number, name in enumerate(names):
        shift = 0.28 * ((number + 0.5) / len(names) - 0.5)  # side by side, so that bars show
        own = {_category(row): row for row in rows if row.name == name}
        points = [(x(i + shift), own[p]) for i, p in enumerate(places) if p in own]
        lines.append(series(number, *_group_line(points, y, share)))
    return frame.draw(
        f"{axis}, by group of questions",
        frame.horizontal_axis(
            x,
            "level" if rows[0].level is not None else "task",
            lambda v: places[round(v)],
            list(map(float, range(len(places)))),
        ),
        frame.vertical_axis(y, axis, percent if share else count),
        *lines,
    )


def budget_curve(runs: Sequence[Lengths]) -> Markup:
    """Accuracy when each response is cut at B tokens: what is cut counts as not right."""
    frame = Frame()
    x = _length_scale(frame, runs)
    y = frame.y(0.0, 1.0)
    budgets = np.unique(np.round(np.geomspace(x.low, x.high, STEPS)))
    lines = []
    for number, run in enumerate(runs):
        points = [
            (x(float(b)), y(share))
            for b in budgets
            if (share := accuracy_within(run, float(b))) is not None
        ]
        lines.append(series(number, tag("title", run.name), path(points, class_="line")))
    return frame.draw(
        "Accuracy when each response is cut at a budget of tokens",
        frame.horizontal_axis(x, "budget: tokens per response (log scale)", count),
        frame.vertical_axis(y, "accuracy within the budget", percent),
        *lines,
    )


def accuracy_within(run: Lengths, budget: float) -> float | None:
    """The share of graded responses that are right and no longer than `budget` tokens."""
    graded = ~np.isnan(run.right)
    if not graded.any():
        return None
    return float(((run.right == 1.0) & (run.tokens <= budget))[graded].mean())


def length_distribution(runs: Sequence[Lengths]) -> Markup:
    """How long the responses of each run are: a row per run, its peak as high as the others'."""
    row_height = 46
    frame = Frame(width=1180, height=12 + row_height * len(runs) + 44, left=210, right=110, top=12)
    x = _length_scale(frame, runs)
    edges = np.geomspace(x.low, x.high * 1.0001, BINS + 1)
    shares = [np.histogram(run.tokens, edges)[0] / len(run.tokens) for run in runs]
    rows = []
    for number, (run, share) in enumerate(zip(runs, shares, strict=True)):
        floor = frame.top + row_height * (number + 1)
        heights = [float(h) for h in share / share.max() * (row_height - 8)]
        rows.append(series(number, *_histogram(frame, run, heights, edges, x, floor)))
    return frame.draw(
        "Distribution of response lengths",
        frame.horizontal_axis(x, "tokens per response (log scale)", count),
        *rows,
    )


def _histogram(
    frame: Frame, run: Lengths, heights: Sequence[float], edges: Array, x: Scale, floor: float
) -> list[Markup]:
    points = [(x(float(edges[0])), floor)]
    for height, (low, high) in zip(heights, itertools.pairwise(edges), strict=True):
        points += [(x(float(low)), floor - height), (x(float(high)), floor - height)]
    points.append((x(float(edges[-1])), floor))
    median, high = (float(v) for v in np.percentile(run.tokens, (50, 90)))
    return [
        tag("title", f"{run.name}: median {median:.0f}, 90th percentile {high:.0f} tokens"),
        path(points, class_="area"),
        tag("line", x1=x(median), x2=x(median), y1=floor - 34, y2=floor, class_="median"),
        tag("text", _short(run.name, 30), x=frame.left - 10, y=floor - 12, text_anchor="end"),
        tag(
            "text",
            f"{median:.0f} / {high:.0f}",
            x=frame.width - frame.right + 10,
            y=floor - 12,
            class_="number",
        ),
    ]


def _length_scale(frame: Frame, runs: Sequence[Lengths]) -> Scale:
    low = max(1.0, min(float(run.tokens.min()) for run in runs))
    high = max(float(run.tokens.max()) for run in runs)
    return frame.x(low * 0.9, max(high * 1.05, low * 2), log=True)


def _padded(bounds: Sequence[Interval]) -> Interval:
    """A range of shares with room around intervals; all of [0, 1] when there are none."""
    if not bounds:
        return 0.0, 1.0
    low, high = min(b[0] for b in bounds), max(b[1] for b in bounds)
    room = max(0.06, 0.15 * (high - low))
    return max(0.0, low - room), min(1.0, high) + 0.03


def _cross(x: Scale, y: Scale, row: Row) -> Markup:
    """A point with its two error bars; the words appear when it is pointed at."""
    value, (low, high) = row.accuracy or 0.0, row.accuracy_interval or (0.0, 1.0)
    left, right = row.tokens_interval
    words = (
        f"{row.name}: accuracy {percent(value)} [{percent(low)}, {percent(high)}], "
        f"{row.tokens:.1f} tokens [{left:.1f}, {right:.1f}]"
    )
    return (
        tag("title", words)
        + tag("line", x1=x(left), x2=x(right), y1=y(value), y2=y(value), class_="bar")
        + tag("line", x1=x(row.tokens), x2=x(row.tokens), y1=y(low), y2=y(high), class_="bar")
        + tag("circle", cx=x(row.tokens), cy=y(value), r=4.5, class_="dot")
    )


Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels."""


def _name_places(
    frame: Frame,
    names: Sequence[str],
    points: Sequence[tuple[float, float]],
    bars: Sequence[Box],
) -> list[Box]:
    """A box for each name beside its point, where it covers the least of the others."""
    taken: list[Box] = [*bars, *((x - 6, y - 6, x + 6, y + 6) for x, y in points)]
    boxes = []
    for name, (x, y) in zip(names, points, strict=True):
        width = LETTER * len(_short(name, 34))
        candidates = [
            (left, y + drop - 8, left + width, y + drop + 8)
            for drop in (0, -16, 16, -32, 32, 48, 64, 80, 96, 112)
            for left in (x + 10, x - 10 - width)
        ]
        best = min(candidates, key=lambda box: (_covered(box, taken, frame), candidates.index(box)))
        taken.append(best)
        boxes.append(best)
    return boxes


def _bar_box(x: Scale, y: Scale, row: Row) -> Box:
    """Where the vertical error bar of a point is."""
    low, high = row.accuracy_interval or (0.0, 1.0)
    return x(row.tokens) - 2, y(high), x(row.tokens) + 2, y(low)


def _covered(box: Box, taken: Sequence[Box], frame: Frame) -> float:
    """How much of a box is over others, or outside the plot (which is worse)."""
    left, top, right, bottom = box
    inside: Box = (frame.left, frame.top, frame.width - 4, frame.height - frame.bottom)
    area = (right - left) * (bottom - top)
    outside = area - _common(box, inside)
    return sum(_common(box, other) for other in taken) + 20 * outside


def _common(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def _leader(point: tuple[float, float], box: Box) -> Markup:
    """A thin line from a point to its name, when the name is not right beside it."""
    middle = (box[1] + box[3]) / 2
    if abs(middle - point[1]) < 24:
        return Markup("")
    end = box[0] - 2 if box[0] > point[0] else box[2] + 2
    return path([point, (end, middle)], class_="leader")


def _name(name: str, box: Box) -> Markup:
    return tag("text", _short(name, 34), x=box[0], y=(box[1] + box[3]) / 2 + 4, class_="name")


def _group_line(points: Sequence[tuple[float, Row]], y: Scale, share: bool) -> list[Markup]:
    marks = [path([(x, y(_measured(row, share)[0])) for x, row in points], class_="line thin")]
    for x, row in points:
        value, interval = _measured(row, share)
        shown = percent(value) if share else f"{value:.1f} tokens"
        if interval is not None:
            low, high = interval
            marks.append(tag("line", x1=x, x2=x, y1=y(low), y2=y(high), class_="bar"))
            bounds = (percent(low), percent(high)) if share else (f"{low:.1f}", f"{high:.1f}")
            shown += f" [{bounds[0]}, {bounds[1]}]"
        words = f"{row.name}, {_category(row)}: {shown}, {row.questions} questions"
        marks.append(tag("circle", tag("title", words), cx=x, cy=y(value), r=3.5, class_="dot"))
    return marks


def _measured(row: Row, share: bool) -> tuple[float, Interval | None]:
    """The share that reflects, or mean tokens; with its interval."""
    if share:
        return row.reflection, row.reflection_interval
    return row.tokens, row.tokens_interval


def _category(row: Row) -> str:
    return row.level if row.level is not None else row.task or "all"


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
