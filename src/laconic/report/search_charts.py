"""The figures of a search: its front, its hypervolume over tokens, what its knobs decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from laconic.report.svg import Frame, Scale, count, path, percent, series, tag

Record = Mapping[str, Any]
SWEEP = "sweep"
"""The phase of a search that is the grid of one knob."""
BAR = 20
"""Height of a bar with the space below it, in pixels."""


def front_chart(record: Record, trials: Sequence[Record]) -> Markup:
    """Accuracy against tokens on the deciding questions: trials, parents, and the front."""
    frame = Frame(width=1180, height=420)
    parents = [record["parents"][role] for role in ("slow", "quick")]
    known = [trial for trial in trials if trial["accuracy"] is not None]
    x = frame.x(0.0, 1.08 * max(p["tokens_interval"][1] for p in [*parents, *record["front"]]))
    lows = [p["accuracy_interval"][0] for p in [*parents, *record["front"]]]
    y = frame.y(max(min(lows) - 0.05, 0.0), 1.02)
    steps = [(x(row["tokens"]), y(row["accuracy"])) for row in record["front"]]
    named = zip(("slow", "quick"), parents, strict=True)
    return frame.draw(
        "The front of accuracy against mean tokens",
        frame.horizontal_axis(x, "mean tokens per response", count),
        frame.vertical_axis(y, "accuracy", percent),
        series(7, *(_trial(x, y, trial) for trial in known)),
        series(0, path(steps, class_="line thin")),
        *(series(0, _cross(x, y, row["trial"], row)) for row in record["front"]),
        *(series(3, _cross(x, y, name, own), _name(x, y, name, own)) for name, own in named),
    )


def hypervolume_chart(record: Record) -> Markup:
    """The hypervolume after each trial; the sweep alone goes on as a level line, the baseline."""
    frame = Frame()
    curve = record["curve"]
    x = frame.x(0.0, 1.02 * max(point["generated"] for point in curve))
    y = frame.y(0.0, 1.05 * max(max(point["hypervolume"] for point in curve), 0.01))
    swept = [point for point in curve if point["trial"].startswith(f"{SWEEP}/")]
    lines = [series(0, tag("title", "the search"), _steps(x, y, curve))]
    if 0 < len(swept) < len(curve):
        level = y(swept[-1]["hypervolume"])
        words = tag("title", "the grid of one knob alone")
        ends = [(x(swept[-1]["generated"]), level), (x(x.high), level)]
        lines.append(series(1, words, path(ends, class_="line thin")))
    return frame.draw(
        "Hypervolume against generated tokens",
        frame.horizontal_axis(x, "tokens generated, parents included", count),
        frame.vertical_axis(y, "hypervolume", percent),
        *lines,
    )


def importance_chart(found: Mapping[str, Mapping[str, float]]) -> Markup:
    """How much each knob decides accuracy and tokens: two bars per knob, shares of 1."""
    knobs = list(found["accuracy"])
    frame = Frame(height=12 + (2 * BAR + 8) * len(knobs) + 44, left=230)
    x = frame.x(0.0, 1.0)
    bars = []
    for place, knob in enumerate(knobs):
        top = frame.top + place * (2 * BAR + 8)
        bars.append(tag("text", knob, x=frame.left - 8, y=top + BAR + 4, text_anchor="end"))
        for number, objective in enumerate(("accuracy", "tokens")):
            share = found[objective].get(knob, 0.0)
            words = tag("title", f"{knob}, {objective}: {percent(share)}")
            at = top + number * BAR
            ends = [(x(0.0), at), (x(share), at), (x(share), at + BAR - 4), (x(0.0), at + BAR - 4)]
            bars.append(series(number, words, path(ends, class_="area")))
    return frame.draw(
        "What each knob decides",
        frame.horizontal_axis(x, "share of the objective it decides", percent),
        *bars,
    )


def _trial(x: Scale, y: Scale, trial: Record) -> Markup:
    words = (
        f"{trial['trial']} ({trial['status']}): {percent(trial['accuracy'])}, "
        f"{trial['tokens']:.1f} tokens on {trial['answered']} questions"
    )
    place = {"cx": x(trial["tokens"]), "cy": y(trial["accuracy"])}
    return tag("g", tag("title", words), tag("circle", r=2.5, class_="dot", **place))


def _cross(x: Scale, y: Scale, name: str, row: Record) -> Markup:
    (low, high), (left, right) = row["accuracy_interval"], row["tokens_interval"]
    at, across = y(row["accuracy"]), x(row["tokens"])
    words = f"{name}: {percent(row['accuracy'])}, {row['tokens']:.1f} tokens"
    return (
        tag("title", words)
        + tag("line", x1=x(left), x2=x(right), y1=at, y2=at, class_="bar")
        + tag("line", x1=across, x2=across, y1=y(low), y2=y(high), class_="bar")
        + tag("circle", cx=across, cy=at, r=4.5, class_="dot")
    )


def _name(x: Scale, y: Scale, name: str, row: Record) -> Markup:
    return tag("text", name, x=x(row["tokens"]) + 9, y=y(row["accuracy"]) - 7, class_="name")


def _steps(x: Scale, y: Scale, curve: Sequence[Record]) -> Markup:
    """A line that rises only where a trial ended."""
    points = [(x(0.0), y(0.0))]
    for point in curve:
        points += [
            (x(point["generated"]), points[-1][1]),
            (x(point["generated"]), y(point["hypervolume"])),
        ]
    return path(points, class_="line")
