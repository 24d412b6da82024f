"""Symbolic equality of two LaTeX expressions, over math-verify; runs in the worker process only.

The grammar of latex2sympy reads the text; no text is handed to SymPy's own string parser, which
evaluates what it reads as code.
"""

from __future__ import annotations

import functools
from typing import Any

import sympy
from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex
from math_verify import verify
from math_verify.grader import should_treat_as_complex

from laconic.grade.probing import probed

# Units are taken off before: its own rule for them also eats variables (`12ab` would be 12).
SPELLING = NormalizationConfig(units=False, malformed_operators=True, nits=True, boxed="none")


def equal(gold: str, answer: str) -> bool:
    """Whether two expressions mean the same. False when one cannot be read."""
    real = not (should_treat_as_complex(gold) or should_treat_as_complex(answer))
    try:
        left, right = parse(gold, real), parse(answer, real)
    except MemoryError:
        raise
    except Exception:  # the parser has no exception of its own for what it cannot read
        return False
    if (verdict := probed(left, right)) is not None:
        return verdict
    # No time limit of its own: it would count as "not equal". The parent kills this process.
    return bool(verify(left, right, timeout_seconds=None, allow_set_relation_comp=True))


@functools.lru_cache(maxsize=1000)
def parse(text: str, real: bool) -> Any:
    """The SymPy expression that a LaTeX text means; `i` in it is the imaginary unit.

    real: whether its variables are. Variables of one name are equal only if both are.
    """
    found = latex2sympy(
        normalize_latex(text, SPELLING),
        is_real=real,
        convert_degrees=False,
        normalization_config=None,
    )
    if not isinstance(found, sympy.Expr) or found.has(sympy.Sum, sympy.Product):
        return found
    return found.xreplace({symbol: sympy.I for symbol in found.free_symbols if symbol.name == "i"})
