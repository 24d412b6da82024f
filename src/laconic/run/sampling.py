"""How tokens are drawn and when a response is stopped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from laconic.errors import LaconicError


@dataclass(frozen=True)
class Sampling:
    """Decoding parameters, all explicit: nothing is inherited from a model's own settings.

    max_tokens: most completion tokens, 1 or more (the context window may end a response sooner).
    temperature: 0 is greedy decoding. top_p: in (0, 1], 1 is off. top_k: 0 is off.
    n: responses (draws) per sample; more than one needs a temperature. seed: 0 or more.
    stop: texts at which a response ends; they are left out of it and of its tokens.
    Raises LaconicError for a value out of range.
    """

    max_tokens: int = 4096
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    n: int = 1
    seed: int = 0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check("max_tokens", self.max_tokens, self.max_tokens >= 1, "1 or more")
        finite = math.isfinite(self.temperature)
        _check("temperature", self.temperature, finite and self.temperature >= 0, "0 or more")
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "above 0, at most 1")
        _check("top_k", self.top_k, self.top_k >= 0, "0 (off) or more")
        _check("n", self.n, self.n >= 1, "1 or more")
        _check("seed", self.seed, self.seed >= 0, "0 or more")
        if not isinstance(self.stop, tuple) or not all(self.stop):
            raise LaconicError(f"sampling: stop is {self.stop!r}; expected a tuple of texts")
        if self.greedy and self.n > 1:
            raise LaconicError(
                f"sampling: {self.n} draws at temperature 0 would all be the same; "
                "set a temperature above 0, or n to 1"
            )

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0

    def to_dict(self) -> dict[str, Any]:
        """The parameters as a JSON object; `stop` only where there are any."""
        stop = {"stop": list(self.stop)} if self.stop else {}
        return {name: value for name, value in asdict(self).items() if name != "stop"} | stop


def first_stop(text: str, stops: Sequence[str]) -> tuple[int, str] | None:
    """Where the first stop text stands in a response, and which it is; None when none does."""
    found = [(place, stop) for stop in stops if (place := text.find(stop)) >= 0]
    return min(found, default=None)


def _check(name: str, value: float, fits: bool, expected: str) -> None:
    if not fits:
        raise LaconicError(f"sampling: {name} is {value}; expected {expected}")
