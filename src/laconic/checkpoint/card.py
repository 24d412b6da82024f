"""The model card of the output: README.md with front matter that the Hub understands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import yaml

from laconic.diagnosis.findings import Diagnosis
from laconic.errors import LaconicError
from laconic.provenance import versions
from laconic.tensors.source import Source

CARD_FILE = "README.md"
TAGS = ["merge", "laconic", "long-to-short"]
BEGIN, END = "<!-- laconic results: begin -->", "<!-- laconic results: end -->"
NOT_MEASURED = "Not measured yet: `laconic eval OUT --tasks ... --out RUN` measures it."
COLUMNS = {
    "name": "model",
    "method": "method",
    "task": "task",
    "accuracy": "accuracy",
    "tokens": "mean tokens",
    "tokens_change": "change of tokens",
    "reflection": "reflection",
    "cut": "cut",
}
SHARES = ("accuracy", "tokens_change", "reflection", "cut")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


class RecipeLike(Protocol):
    """What the card needs of a recipe."""

    @property
    def hash(self) -> str:
        """The recipe's hash."""

    def to_yaml(self) -> str:
        """The recipe as YAML."""


def write_card(
    folder: Path,
    *,
    recipe: RecipeLike,
    sources: Mapping[str, Source],
    methods: Iterable[tuple[str, str]],
    diagnosis: Diagnosis,
    title: str = "Merged model",
    results: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write README.md: parents, methods as (name, source), recipe, decisions, results.

    results: rows as `laconic demo --json` has them (name, accuracy and cut from 0 to 1, tokens);
    without any the card says that nothing was measured.
    """
    common = _common([_licence(source) for source in sources.values()])
    text = _template().render(
        front=_front_matter(sources, common),
        title=title,
        version=versions()["laconic"],
        parents=_parents(sources),
        licence=common,
        methods=[{"name": name, "source": source} for name, source in methods],
        recipe_hash=recipe.hash,
        recipe_yaml=recipe.to_yaml(),
        decisions=[f for f in diagnosis.decisions if f.topic != "generation_config"],
        results=_results_section(results),
    )
    _write(folder / CARD_FILE, text)


def add_results(folder: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Replace the results section of a card that `write_card` made; the rest stays as edited.

    Raises LaconicError when there is no card, or the section's two marks were removed.
    """
    path = folder / CARD_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise LaconicError(f"{path}: cannot be read: {error.strerror}") from error
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise LaconicError(f"{path}: the lines {BEGIN} and {END} are missing; put them back")
    _write(path, head + _results_section(results) + tail)


def _parents(sources: Mapping[str, Source]) -> list[dict[str, str]]:
    """Return one row per checkpoint; the base is often the quick model."""
    roles: dict[str, list[str]] = {}
    for role, source in sources.items():
        roles.setdefault(source.name, []).append(role)
    by_name = {source.name: source for source in sources.values()}
    return [
        {
            "role": ", ".join(roles[name]),
            "name": name,
            "licence": _licence(source).get("license", "not known here"),
        }
        for name, source in by_name.items()
    ]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise LaconicError(f"{path}: cannot be written: {error.strerror}") from error


def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["cell"] = _cell
    environment.filters["line"] = _line
    environment.filters["sentence"] = lambda text: _line(text[:1].upper() + text[1:])
    template = resources.files("laconic.checkpoint").joinpath("card.md.j2")
    return environment.from_string(template.read_text(encoding="utf-8"))


def _front_matter(sources: Mapping[str, Source], licence: Mapping[str, str]) -> str:
    ids = list(dict.fromkeys(s.name for s in sources.values() if _on_hub(s)))
    front: dict[str, Any] = {"library_name": "transformers", "tags": TAGS, **licence}
    if ids:
        front |= {"base_model": ids, "base_model_relation": "merge"}
    return yaml.safe_dump(front, sort_keys=True, allow_unicode=True)


def _on_hub(source: Source) -> bool:
    return bool(_HUB_ID.fullmatch(source.name)) and not Path(source.name).exists()


def _licence(source: Source) -> dict[str, str]:
    """Return the licence keys in the front matter of a parent's own card, if its folder has one."""
    try:
        text = (source.folder / CARD_FILE).read_text(encoding="utf-8")
        parts = re.split(r"^---\s*$", text, maxsplit=2, flags=re.MULTILINE)
        front = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0].strip() else None
    except (OSError, ValueError, yaml.YAMLError):
        return {}  # a parent's card is not ours to correct: its licence stays unknown
    keys = ("license", "license_name", "license_link")
    return {k: front[k] for k in keys if isinstance(front, dict) and isinstance(front.get(k), str)}


def _common(licences: Sequence[Mapping[str, str]]) -> dict[str, str]:
    first, *others = licences
    return dict(first) if "license" in first and all(other == first for other in others) else {}


def _results_section(results: Sequence[Mapping[str, Any]]) -> str:
    body = _table(results) if results else NOT_MEASURED
    return f"{BEGIN}\n{body}\n{END}"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    keys = [key for key in COLUMNS if any(row.get(key) is not None for row in rows)]
    if not keys:
        raise LaconicError(f"results: no row has any of {', '.join(COLUMNS)}")
    lines = [[COLUMNS[key] for key in keys], ["---"] * len(keys)]
    lines += [[_value(row, key) for key in keys] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _value(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return "not known"
    if key in SHARES:
        sign = "+" if key == "tokens_change" else ""
        interval = row.get(f"{key}_interval")
        spread = f" [{interval[0]:.1%}, {interval[1]:.1%}]" if interval else ""
        return f"{value:{sign}.1%}{spread}"
    return f"{value:.0f}" if isinstance(value, float) else _cell(str(value))


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _line(text: str) -> str:
    """Put text on one line and keep tokens such as <think> from being read as HTML."""
    flat = " ".join(text.split())
    return flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
