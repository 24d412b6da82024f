"""The command that searches for merges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from laconic.cli.options import BATCH_SIZE, DEVICE, JSON, PROTOCOL, names, show
from laconic.errors import LaconicError

BUDGET = ("trials", "tokens", "hours")


@click.command()
@click.argument("study", required=False)
@click.option("--quick", help="The System-1 parent: folder or Hub id; in place of STUDY.")
@click.option("--slow", help="The System-2 parent: folder or Hub id; in place of STUDY.")
@click.option("--base", help="Their common ancestor; the quick model unless given.")
@click.option("--tasks", help="Names or files, joined by commas; in place of STUDY.")
@click.option("--holdout", type=float, help="Share of the questions that decides, without a split.")
@PROTOCOL
@click.option("--max-tokens", type=int, help="Per response.")
@click.option("--dtype-out", help="Of the merges: bfloat16, float16 or float32.")
@click.option("--auto", is_flag=True, help="Choose an interpolation without right answers.")
@click.option("--trials", type=int, help="The budget: most merges tried.")
@click.option("--tokens", type=int, help="The budget: most tokens generated to decide.")
@click.option("--hours", type=float, help="The budget: most hours of trials.")
@click.option("--seed", type=int, help="Of everything random.")
@click.option("--out", help="The folder of the search; with --pick, the merged model's.")
@click.option("--extend", is_flag=True, help="Go on with another budget than before.")
@click.option("--storage", default="journal", show_default=True, help="Or sqlite, or a URL.")
@click.option("--workers", default="1", show_default=True, help="Processes; or ray, ray:NUMBER.")
@click.option("--pick", "rule", help="knee, accuracy or tokens=N: write that merge to --out.")
@click.option("--force", is_flag=True, help="With --pick: replace a finished output, whole.")
@DEVICE
@click.option("--dtype", help="Of the live models: float32, bfloat16 or float16.")
@BATCH_SIZE
@JSON
def search(
    study: str | None,
    out: str | None,
    extend: bool,
    storage: str,
    workers: str,
    auto: bool,
    rule: str | None,
    force: bool,
    device: str | None,
    dtype: str | None,
    batch_size: int | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Search for the merges that nothing beats in both accuracy and tokens.

    STUDY is a YAML file, or the folder of a search. Without one, --quick, --slow and --tasks do the
    usual: a sweep of the interpolation, then TIES and blocks of layers around its best region. The
    same command goes on with a search that was stopped.
    """
    from laconic.searching.search import Options
    from laconic.searching.search import search as run

    made, folder = _study(study, given, None if rule else out)
    options = Options(
        storage,
        int(workers) if workers.isdigit() else workers,
        device,
        dtype,
        batch_size,
    )
    if rule:
        _pick(made, folder, rule, out, force, extend, options, as_json)
        return
    if auto:
        from laconic.searching.auto import auto as choose

        choice = choose(made, out=folder, options=options)
        show(choice.to_dict() if as_json else "\n".join(choice.lines()))
        return
    found = run(made, out=folder, options=options, extend=extend)
    _show(found.to_dict(), as_json)


def _show(record: dict[str, Any], as_json: bool) -> None:
    from laconic.report.front import front_table
    from laconic.report.tables import write_table

    if as_json:
        show(record)
    else:
        write_table(front_table(record))


def _pick(
    study: Any,
    folder: Path,
    rule: str,
    out: str | None,
    force: bool,
    extend: bool,
    options: Any,
    as_json: bool,
) -> None:
    """Write a merge of the front; a search that is not finished is finished first."""
    from laconic.searching.folder import StudyFolder
    from laconic.searching.picking import pick
    from laconic.searching.search import search as run

    if out is None:
        raise LaconicError("--pick: give --out, the folder that the merged model is written to")
    if not StudyFolder(folder).front.is_file():
        run(study, out=folder, options=options, extend=extend)
    found = pick(folder, rule, out, force=force)
    row = found.row
    show(
        found.to_dict()
        if as_json
        else f"{found.path}: {found.trial}, {100 * row['accuracy']:.1f}% at {row['tokens']:.1f} "
        f"tokens on the deciding questions, recipe {found.recipe_hash}"
    )


def _study(name: str | None, given: dict[str, Any], out: str | None) -> tuple[Any, Path]:
    """The study, of a file, a folder or options, and the folder of the search."""
    from laconic.searching.folder import StudyFolder
    from laconic.searching.study_file import load_study, parse_study

    stated = {key: value for key, value in given.items() if value is not None}
    budget: dict[str, Any] = {key: stated.pop(key) for key in BUDGET if key in stated}
    if name is None:
        raw = _raw_study(stated) | ({"budget": budget} if budget else {})
        return parse_study(raw, where="options"), Path(out or "search-out")
    if stated:
        raise LaconicError(
            f"--{next(iter(stated)).replace('_', '-')} cannot change a study; edit its file, or "
            "leave it out and give --quick, --slow and --tasks"
        )
    folder = Path(name)
    if folder.is_dir():
        study = StudyFolder(folder).read()[0]
    else:
        study, folder = load_study(name), Path(out or f"{Path(name).stem}-search")
    changed: dict[str, Any] = {**study.budget.model_dump(), **budget}
    return parse_study({**study.model_dump(), "budget": changed}), folder


def _raw_study(stated: dict[str, Any]) -> dict[str, Any]:
    missing = [f"--{key}" for key in ("quick", "slow", "tasks") if key not in stated]
    if missing:
        raise LaconicError(
            f"give STUDY, or --quick, --slow and --tasks; missing: {', '.join(missing)}"
        )
    raw = {**stated, "tasks": names(stated["tasks"])}
    if "max_tokens" in raw:
        raw["sampling"] = {"max_tokens": raw.pop("max_tokens")}
    if "dtype_out" in raw:
        raw["output"] = {"dtype": raw.pop("dtype_out")}
    return raw
