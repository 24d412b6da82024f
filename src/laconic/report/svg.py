"""Drawing: SVG elements as text, scales from values to pixels, and a frame with axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

COLOURS = 10
"""Series colours that the page's style sheet defines, s0 to s9."""


def tag(name: str, *inside: str, **attributes: object) -> Markup:
    """One element. Attribute names: `_` stands for `-`, a trailing `_` is dropped.

    What is inside is escaped unless it is Markup already.
    """
    pairs = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _text(value))
        for key, value in attributes.items()
    )
    body = Markup("").join(inside)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), pairs, body)


@dataclass(frozen=True)
class Scale:
    """From values in [low, high] to pixels in [start, end], linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value; values outside are put on the edge."""
        inside = min(max(value, self.low), self.high)
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, inside))
        return self.start + (self.end - self.start) * (at - low) / (high - low)

    def ticks(self) -> list[float]:
        """About five round values."""
        if self.log:
            return _log_ticks(self.low, self.high)
        step = _round_step((self.high - self.low) / 5)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [step * i for i in range(first, last + 1)]


@dataclass(frozen=True)
class Frame:
    """A drawing of `width` by `height` with room for the axes' words around the plot."""

    width: int = 580
    height: int = 320
    left: int = 62
    right: int = 16
    top: int = 12
    bottom: int = 44

    def x(self, low: float, high: float, *, log: bool = False) -> Scale:
        """The horizontal scale of the plot."""
        return Scale(low, high, self.left, self.width - self.right, log)

    def y(self, low: float, high: float) -> Scale:
        """The vertical scale of the plot; it grows upwards."""
        return Scale(low, high, self.height - self.bottom, self.top)

    def draw(self, label: str, *inside: Markup) -> Markup:
        """The whole drawing; `label` says in words what it shows."""
        return tag(
            "svg",
            *inside,
            viewBox=f"0 0 {self.width} {self.height}",
            role="img",
            aria_label=label,
        )

    def horizontal_axis(
        self, scale: Scale, label: str, show: Callable[[float], str], ticks: Sequence[float] = ()
    ) -> Markup:
        """Ticks below the plot, and what they measure."""
        floor = self.height - self.bottom
        marks = [
            tag("line", x1=scale(v), x2=scale(v), y1=self.top, y2=floor, class_="grid")
            + tag("text", show(v), x=scale(v), y=floor + 17, text_anchor="middle")
            for v in ticks or scale.ticks()
        ]
        middle = (self.left + self.width - self.right) / 2
        name = tag("text", label, x=middle, y=self.height - 7, text_anchor="middle", class_="label")
        return Markup("").join([*marks, name])

    def vertical_axis(self, scale: Scale, label: str, show: Callable[[float], str]) -> Markup:
        """Ticks left of the plot, and what they measure."""
        right = self.width - self.right
        marks = [
            tag("line", x1=self.left, x2=right, y1=scale(v), y2=scale(v), class_="grid")
            + tag("text", show(v), x=self.left - 7, y=scale(v) + 4, text_anchor="end")
            for v in scale.ticks()
        ]
        middle = (self.top + self.height - self.bottom) / 2
        turned = f"rotate(-90 13 {_text(middle)})"
        name = tag(
            "text", label, x=13, y=middle, text_anchor="middle", transform=turned, class_="label"
        )
        return Markup("").join([*marks, name])


def path(points: Sequence[tuple[float, float]], **attributes: object) -> Markup:
    """A line through points in pixels."""
    steps = " ".join(f"{_text(x)},{_text(y)}" for x, y in points)
    return tag("polyline", points=steps, **attributes)


def series(number: int, *inside: Markup) -> Markup:
    """The drawing of one run, in its colour."""
    return tag("g", *inside, class_=f"series s{number % COLOURS}", data_run=number)


def count(value: float) -> str:
    """A number of tokens, short: 850, 1.5k, 32k."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.4g}%"


def _text(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _round_step(step: float) -> float:
    """The nearest of 1, 2, 2.5, 5 times a power of ten at or above a step."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= step * (1 - 1e-9))


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1,)):
        ticks = [d * 10.0**p for p in powers for d in digits if low <= d * 10.0**p <= high]
        if len(ticks) <= 9:
            break
    return ticks or [low, high]
