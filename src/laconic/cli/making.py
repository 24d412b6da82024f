"""Commands that make a merge and look at what goes into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from laconic.cli.options import JSON, show
from laconic.errors import LaconicError

TIE = click.option(
    "--tie-policy",
    type=click.Choice(["untie_any", "base", "error"]),
    default="untie_any",
    show_default=True,
    help="What to do when one parent ties its embeddings and another does not.",
)
TOKENIZER = click.option(
    "--tokenizer", default="base", show_default=True, help="The role whose tokenizer is taken."
)

MEMORY = click.option(
    "--memory", metavar="SIZE", help="Most resident memory of the process, such as 2GB."
)


@click.command()
@click.option("--quick", required=True, help="The System-1 parent: folder or Hub id.")
@click.option("--slow", required=True, help="The System-2 parent: folder or Hub id.")
@click.option("--base", default=None, help="Their common ancestor; the quick model unless given.")
@TIE
@TOKENIZER
@JSON
def doctor(
    quick: str, slow: str, base: str | None, tie_policy: str, tokenizer: str, as_json: bool
) -> int:
    """Say whether a pair can be merged and what will go wrong, before a byte of weight is read."""
    from laconic.diagnosis.doctor import doctor as examine

    diagnosis = examine(quick, slow, base, tie_policy=tie_policy, tokenizer=tokenizer)
    show(diagnosis.to_dict() if as_json else "\n".join(diagnosis.lines()))
    return 0 if diagnosis.ok else 2


@click.command()
@click.argument("recipe")
@click.argument("out", required=False)
@MEMORY
@JSON
def plan(recipe: str, out: str | None, memory: str | None, as_json: bool) -> None:
    """Show what merging RECIPE would do and cost, from headers alone.

    With OUT a disk that cannot hold the output is refused.
    """
    from laconic.merging.forecast import forecast
    from laconic.merging.memory import fit
    from laconic.plan import make_plan
    from laconic.recipe import load_recipe
    from laconic.tensors.sink import check_disk

    made = make_plan(load_recipe(recipe))
    if out:
        check_disk([(Path(out), made.nbytes)])
    cost = forecast(made, fit(made, _bytes(memory)), Path(out or "."))
    if as_json:
        show({**made.to_dict(), "forecast": cost.to_dict()})
    else:
        show("\n".join([*made.lines(), cost.line()]))


@click.command()
@click.argument("paths", nargs=-1, metavar="[RECIPE] OUT")
@click.option("--method", help="Merge with one method, without a recipe file.")
@click.option("--quick", help="The System-1 parent: folder or Hub id.")
@click.option("--slow", help="The System-2 parent: folder or Hub id.")
@click.option("--base", help="Their common ancestor; the quick model unless given.")
@click.option("--set", "knobs", multiple=True, metavar="KNOB=VALUE", help="A knob of the method.")
@click.option("--seed", type=click.IntRange(0), help="Seed of random methods.")
@click.option(
    "--dtype", type=click.Choice(["bfloat16", "float16", "float32"]), help="Of the output."
)
@click.option("--shard-size", help="Most tensor bytes per file, such as 5GB.")
@click.option("--tie-policy", type=click.Choice(["untie_any", "base", "error"]), help="See doctor.")
@click.option("--tokenizer", help="The role whose tokenizer the output takes.")
@click.option("--threads", type=click.IntRange(1, 256), help="Worker threads.")
@MEMORY
@click.option("--device", help="Where to compute: cpu, or a card: cuda, cuda:1 ...")
@click.option(
    "--sweep",
    metavar="KNOB=VALUES",
    help="Merge once per value, such as alpha=0.3:0.9:0.1, into OUT/alpha-0.3 and so on.",
)
@click.option("--force", is_flag=True, help="Replace a finished output, whole.")
@JSON
def merge(
    paths: tuple[str, ...],
    threads: int | None,
    memory: str | None,
    device: str | None,
    sweep: str | None,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Merge RECIPE into the new folder OUT; or give --method, --quick and --slow, and OUT alone.

    A merge that was killed resumes with the same command.
    """
    from laconic.merging import engine

    recipe, out = _recipe_and_out(paths, options)
    settings: dict[str, Any] = {"force": force, "threads": threads, "device": device}
    settings["memory"] = _bytes(memory)
    if sweep:
        results = engine.sweep(recipe, sweep, out, **settings)
        rows = [result.to_dict() for result in results]
        show(rows if as_json else "\n".join(result.line() for result in results))
        return
    result = engine.merge(recipe, out, **settings)
    show(result.to_dict() if as_json else result.line())


@click.command()
@click.argument("name", required=False)
@JSON
def methods(name: str | None, as_json: bool) -> None:
    """List every merging method with its knobs, what it needs and its source; or explain NAME."""
    from laconic.registry import get_method
    from laconic.registry import methods as all_methods

    chosen = [get_method(name)] if name else list(all_methods().values())
    if as_json:
        rows = [method.to_dict() for method in chosen]
        show(rows[0] if name else rows)
    elif name:
        show(chosen[0].explanation())
    else:
        show("\n".join(method.line() for method in chosen))


@click.command()
@click.argument("name", required=False)
@JSON
def recipes(name: str | None, as_json: bool) -> None:
    """List the published recipes with source and published result; or print NAME as YAML.

    A name stands for its recipe wherever a command takes RECIPE.
    """
    from laconic.errors import unknown
    from laconic.published import recipes as published

    found = {one: (recipe, about) for one, recipe, about in published()}
    if name and name not in found:
        raise unknown("recipe", name, found)
    if as_json:
        rows = [
            {"name": one, "recipe": recipe.to_dict(), **about.model_dump()}
            for one, (recipe, about) in found.items()
            if name in (None, one)
        ]
        show(rows[0] if name else rows)
    elif name:
        show(found[name][0].to_yaml())
    else:
        show("\n".join(_recipe_line(one, about) for one, (_, about) in found.items()))


@click.command()
@click.argument("recipe")
@click.argument("out")
@click.option("--device", help="cpu, cuda ...; CUDA if there is one.")
@click.option("--dtype", help="Of the running models.")
@click.option("--force", is_flag=True, help="Replace statistics of something else.")
@JSON
def calibrate(
    recipe: str, out: str, device: str | None, dtype: str | None, force: bool, as_json: bool
) -> None:
    """Gather the statistics that RECIPE's methods need into the safetensors file OUT."""
    from laconic.recipe import load_recipe
    from laconic.statistics.calibrate import calibrate as run

    found = run(load_recipe(recipe), out, device=device, dtype=dtype, force=force)
    if as_json:
        show(found.to_dict())
        return
    kinds = ", ".join(f"{kind} ({found.samples.get(kind, 0)} samples)" for kind in found.kinds)
    done = "still holds" if found.reused else "now holds"
    show(f"{found.path} {done} {kinds}; name it in the recipe as  statistics: {found.path}")


@click.command()
@click.argument("recipe")
@click.option("--no-spectrum", is_flag=True, help="Leave the eigenvalues out; much faster.")
@click.option("--svg", help="Draw the layers into this file.")
@JSON
def inspect(recipe: str, no_spectrum: bool, svg: str | None, as_json: bool) -> None:
    """Show how far RECIPE's parents are from their base, layer by layer and module by module."""
    from laconic.recipe import load_recipe
    from laconic.statistics.figure import write_figure
    from laconic.statistics.inspection import inspect as run

    found = run(load_recipe(recipe), spectrum=not no_spectrum)
    if svg:
        write_figure(found, svg)
    show(found.to_dict() if as_json else "\n".join(found.lines()))


@click.command()
@click.argument("folder")
@click.option("--inputs", is_flag=True, help="Digest the parents' files again too.")
@JSON
def verify(folder: str, inputs: bool, as_json: bool) -> int:
    """Check a merged folder against its laconic.json: tensors, files, recipe."""
    from laconic.checkpoint.manifest import verify as check

    found = check(folder, inputs=inputs)
    if as_json:
        show(found.to_dict())
    elif found.ok:
        show(f"{folder}: {found.tensors} tensors and {found.files} files as they were written")
    else:
        show("\n".join(found.problems))
    return 0 if found.ok else 2


def _bytes(memory: str | None) -> int | None:
    from laconic.recipe import parse_size

    try:
        return parse_size(memory) if memory else None
    except ValueError as error:
        raise LaconicError(f"--memory: {error}") from None


def _recipe_and_out(paths: tuple[str, ...], options: dict[str, Any]) -> tuple[Any, Path]:
    """Return the recipe, of a file or of options, and the output folder."""
    from laconic.recipe import load_recipe, parse_recipe

    given = {key: value for key, value in options.items() if value not in (None, ())}
    if len(paths) == 2:
        if given:
            raise LaconicError(
                f"--{next(iter(given)).replace('_', '-')} cannot change a recipe file; edit the "
                "recipe, or leave it out and give --method, --quick and --slow"
            )
        return load_recipe(paths[0]), Path(paths[1])
    missing = [f"--{key}" for key in ("method", "quick", "slow") if key not in given]
    if len(paths) != 1 or missing:
        raise LaconicError(
            "give RECIPE and OUT, or --method, --quick, --slow and OUT"
            + (f"; missing: {', '.join(missing)}" if missing and len(paths) == 1 else "")
        )
    return parse_recipe(_raw_recipe(given), where="options"), Path(paths[0])


def _raw_recipe(given: dict[str, Any]) -> dict[str, Any]:
    """The dictionary form of a recipe given by options; `--set` values are read as YAML."""
    import yaml

    knobs = {}
    for setting in given.pop("knobs", ()):
        name, equals, value = setting.partition("=")
        if not equals:
            raise LaconicError(f"--set {setting}: expected KNOB=VALUE, such as trim=0.8")
        knobs[name] = yaml.safe_load(value)
    raw = {key: given[key] for key in ("base", "quick", "slow", "seed") if key in given}
    written = ("dtype", "shard_size", "tie_policy", "tokenizer")
    output = {key: given[key] for key in written if key in given}
    return raw | {"merge": [{given["method"]: knobs}], "output": output}


def _recipe_line(name: str, about: Any) -> str:
    figures = ", ".join(f"{key} {value}" for key, value in about.published.items())
    return f"{name:<32}{about.source}" + (f": {figures}" if figures else "")
