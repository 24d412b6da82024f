"""Two expressions tried on numbers: a difference at one point is proof, and costs little."""

from __future__ import annotations

from typing import Any

import sympy

POINTS = 5
DIGITS = 30
AGREEMENT = 1e-12
"""Relative difference within which two values at a point are the same."""
ROUNDING = 1e-4
"""The same where one of two closed forms is a rounded decimal."""
UNTRIED = (
    sympy.Integral,
    sympy.Derivative,
    sympy.Sum,
    sympy.Product,
    sympy.Limit,
    sympy.core.function.AppliedUndef,
)
"""What may take for ever to evaluate, or has no value."""


def probed(gold: Any, answer: Any) -> bool | None:
    """The verdict of trying both at the same points; None when values cannot decide."""
    if isinstance(gold, sympy.Eq) and isinstance(answer, sympy.Eq):
        return _equations(gold, answer)
    if not (_tried(gold) and _tried(answer)):
        return _if_other_symbols(gold, answer)
    if not (gold.free_symbols or answer.free_symbols):
        return _closed_forms(gold, answer)
    pairs = _values(gold, answer)
    return all(_near(a, b, AGREEMENT) for a, b in pairs) if pairs else None


def _closed_forms(gold: Any, answer: Any) -> bool | None:
    pairs = _values(gold, answer)
    if not pairs:
        return None
    if gold.has(sympy.Float) or answer.has(sympy.Float):
        exact = gold.is_Integer or answer.is_Integer
        return _near(*pairs[0], AGREEMENT if exact else ROUNDING)
    return _near(*pairs[0], AGREEMENT)


def _equations(gold: Any, answer: Any) -> bool | None:
    """Equations whose differences of sides are in a constant ratio are one equation.

    Others that give different names a value are not; the rest has to be solved (None).
    """
    if not all(_tried(side) for one in (gold, answer) for side in one.args):
        return _if_other_symbols(gold, answer)
    pairs = _values(gold.lhs - gold.rhs, answer.lhs - answer.rhs)
    if not pairs or any(a == 0 or b == 0 for a, b in pairs):
        return None
    ratio = pairs[0][0] / pairs[0][1]
    if all(_near(a / b, ratio, AGREEMENT) for a, b in pairs):
        return True
    assigned = all(one.lhs.is_Symbol and not one.rhs.has(one.lhs) for one in (gold, answer))
    return False if assigned or gold.free_symbols != answer.free_symbols else None


def _if_other_symbols(gold: Any, answer: Any) -> bool | None:
    """False for expressions or equations in other variables; None when these are the same."""
    if not all(isinstance(one, sympy.Expr | sympy.Eq) for one in (gold, answer)):
        return None
    return None if gold.free_symbols == answer.free_symbols else False


def _tried(expression: Any) -> bool:
    return isinstance(expression, sympy.Expr) and not expression.has(*UNTRIED)


def _values(gold: Any, answer: Any) -> list[tuple[complex, complex]]:
    """Both values at points of either sign, where both have one."""
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    pairs = []
    for point in range(POINTS if symbols else 1):
        at = {symbol: _coordinate(point, n) for n, symbol in enumerate(symbols)}
        values = _at(gold, at), _at(answer, at)
        if None not in values:
            pairs.append(values)
    return pairs  # type: ignore[return-value]


def _coordinate(point: int, place: int) -> sympy.Rational:
    """Fixed numbers without a pattern; the first point is positive, later ones of either sign."""
    digits = (7919 * (point + 1) * (place + 3) + 104729 * (place + 1)) % 9973
    sign = -1 if point and (digits + place) % 2 else 1
    return sign * sympy.Rational(digits + 1009, 5003)


def _at(expression: Any, at: dict[Any, Any]) -> complex | None:
    try:
        value = complex(expression.xreplace(at).doit().evalf(DIGITS))
    except (TypeError, ValueError, AttributeError, OverflowError, ZeroDivisionError):
        return None
    return value if abs(value) < float("inf") else None


def _near(left: complex, right: complex, tolerance: float) -> bool:
    return abs(left - right) <= tolerance * max(abs(left), abs(right))
