"""Write docs/methods.md from the docstrings of the methods: `python docs/methods.py`."""

from __future__ import annotations

import inspect
from pathlib import Path

from laconic.registry import Method, methods

PAGE = Path(__file__).parent / "methods.md"
KINDS = {
    "combiner": "Combiners make one tensor of base and experts; a recipe has exactly one.",
    "sparsifier": "Sparsifiers change the task vectors before the combiner.",
    "wrapper": "Wrappers change the merged tensor afterwards.",
}
HEAD = """# Methods

Made from the docstrings by `python docs/methods.py`; a test fails when this page is out of date.
`laconic methods NAME` prints the same. They chain: sparsifiers, one combiner, wrappers, as in
`merge: [{dare: {drop: 0.3}}, {ties: {trim: 0.8}}]`.
"""


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for kind, what in KINDS.items():
        parts.append(f"## {kind.capitalize()}s\n\n{what}\n")
        parts += [section(method) for method in methods().values() if method.kind == kind]
    return "\n".join(parts)


def section(method: Method) -> str:
    """Return a method's section: knobs with their types and defaults, then its docstring."""
    rows = [f"| `{knob.name}` | `{knob.type}` | `{knob.default}` |" for knob in method.knobs]
    table = "\n".join(["| knob | type | default |", "|---|---|---|", *rows])
    knobs = table.replace(" | None", " \\| None") if rows else "No knobs."
    text = inspect.getdoc(method.function)
    needs = ", ".join(f"`{name}`" for name in method.inputs)
    lines = [
        f"### {method.name}",
        f"{method.source}. Takes {needs}.",
        knobs,
        f"```text\n{text}\n```",
    ]
    return "\n\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
