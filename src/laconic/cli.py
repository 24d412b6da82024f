"""The command line: a table of commands, each a public function plus argument parsing.

stdout carries data, stderr progress and messages. Heavy imports stand inside the commands.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from laconic.errors import LaconicError

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON value on stdout.")
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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="laconic")
def app() -> None:
    """Make reasoning models think in fewer words by merging weights, and measure it."""


@app.command()
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
    _print(diagnosis.to_dict() if as_json else "\n".join(diagnosis.lines()))
    return 0 if diagnosis.ok else 2


@app.command()
@click.argument("recipe")
@JSON
def plan(recipe: str, as_json: bool) -> None:
    """Show what merging RECIPE would do, from headers alone."""
    from laconic.plan import make_plan
    from laconic.recipe import load_recipe

    made = make_plan(load_recipe(recipe))
    _print(made.to_dict() if as_json else "\n".join(made.lines()))


@app.command()
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
@click.option("--force", is_flag=True, help="Replace a finished output, whole.")
@JSON
def merge(
    paths: tuple[str, ...], threads: int | None, force: bool, as_json: bool, **options: Any
) -> None:
    """Merge RECIPE into the new folder OUT; or give --method, --quick and --slow, and OUT alone.

    A merge that was killed resumes with the same command.
    """
    from laconic.merging.engine import merge as run

    recipe, out = _recipe_and_out(paths, options)
    result = run(recipe, out, force=force, threads=threads)
    if as_json:
        _print(result.to_dict())
        return
    _print(
        f"{result.path}: {result.tensors} tensors, {result.bytes:,} bytes in "
        f"{result.seconds:.1f} s, peak memory {result.peak_memory / 2**20:,.0f} MiB, "
        f"recipe {result.recipe_hash}"
        + (f" (resumed after {result.resumed} tensors)" if result.resumed else "")
    )


@app.command()
@click.argument("name", required=False)
@JSON
def methods(name: str | None, as_json: bool) -> None:
    """List every merging method with its knobs, what it needs and its source; or explain NAME."""
    from laconic.registry import get_method
    from laconic.registry import methods as all_methods

    chosen = [get_method(name)] if name else list(all_methods().values())
    if as_json:
        rows = [method.to_dict() for method in chosen]
        _print(rows[0] if name else rows)
    elif name:
        _print(chosen[0].explanation())
    else:
        _print("\n".join(method.line() for method in chosen))


@app.command("eval")
@click.argument("model")
@click.option("--tasks", required=True, help="Names, NAME=FILE.jsonl or files, joined by commas.")
@click.option("--out", required=True, help="The run folder; the same command goes on with it.")
@click.option("--split", default="test", show_default=True)
@click.option("--limit", type=int, help="Questions per task, each level in proportion.")
@click.option("--protocol", help="How questions are put and answers sampled, by name.")
@click.option("--data", help="Folder with the benchmarks' files; else they come from the Hub.")
@click.option("--engine", default="transformers", show_default=True, help="Or server, or vllm.")
@click.option("--url", help="Of an OpenAI-compatible server, with --engine server.")
@click.option("--tokenizer", help="Folder or Hub id of the model's tokenizer (server, vllm).")
@click.option("--concurrency", type=int, help="Most requests under way at once (server, vllm).")
@click.option("--vllm-command", "command", help="The vllm program, when it is not on PATH.")
@click.option("--tensor-parallel", type=int, help="GPUs that share each layer (vllm).")
@click.option("--max-model-len", type=int, help="The context window (vllm).")
@click.option("--vllm-args", help="Passed to `vllm serve` as they are, in one string.")
@click.option("--max-tokens", type=int, help="Per response; 4096 unless the protocol says.")
@click.option("--temperature", type=float, help="0, the default, is greedy.")
@click.option("--top-p", type=float)
@click.option("--top-k", type=int, help="0 is off.")
@click.option("--n", type=int, help="Responses per question.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", help="cpu, cuda, cuda:1 ...")
@click.option("--dtype", help="float32, bfloat16 or float16.")
@click.option("--batch-size", type=int, help="Most responses in the model at a time.")
@click.option("--name", help="What the run is called in tables.")
@JSON
def evaluate(
    model: str,
    tasks: str,
    out: str,
    split: str,
    limit: int | None,
    protocol: str | None,
    data: str | None,
    engine: str,
    url: str | None,
    tokenizer: str | None,
    concurrency: int | None,
    command: str | None,
    tensor_parallel: int | None,
    max_model_len: int | None,
    vllm_args: str | None,
    seed: int,
    device: str | None,
    dtype: str | None,
    batch_size: int | None,
    name: str | None,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Measure the accuracy and the response length of MODEL on tasks."""
    from laconic.grade.evaluation import evaluate as run
    from laconic.grade.protocols import get_protocol
    from laconic.grade.tasks import load_task
    from laconic.report.tables import write_summary
    from laconic.run.engines import make_runner
    from laconic.run.sampling import Sampling

    if data:
        os.environ["LACONIC_DATA"] = data
    given = {knob: value for knob, value in sampling.items() if value is not None}
    usual = get_protocol(protocol).sampling if protocol else Sampling()
    names = [task.strip() for task in tasks.split(",")]
    for task in names:
        load_task(task, split, limit=limit, seed=seed)  # a wrong name, before a model is opened
    runner = make_runner(
        engine,
        model,
        url=url,
        tokenizer=tokenizer,
        concurrency=concurrency,
        command=command,
        tensor_parallel=tensor_parallel,
        max_model_len=max_model_len,
        arguments=shlex.split(vllm_args) if vllm_args else None,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
    )
    try:
        summary = run(
            model,
            names,
            out=out,
            split=split,
            protocol=protocol,
            sampling=replace(usual, **given, seed=seed),
            limit=limit,
            seed=seed,
            runner=runner,
            name=name,
        )
    finally:
        getattr(runner, "close", lambda: None)()
    write_summary(summary, "json" if as_json else "terminal")


@app.command()
@JSON
def tasks(as_json: bool) -> None:
    """List the tasks with their source and licence."""
    from laconic.grade.tasks import tasks as known

    found = known()
    if as_json:
        _print([asdict(task) for task in found])
    else:
        _print(
            "\n".join(
                f"{t.name:<16}{t.questions or '-':>6}  {t.source} ({t.licence})" for t in found
            )
        )


@app.command()
@click.argument("run")
@click.option("--export", "exported", help="Write lm-eval's sample files into this folder too.")
@JSON
def regrade(run: str, exported: str | None, as_json: bool) -> None:
    """Grade RUN's stored responses again, without generating."""
    from laconic.grade.evaluation import grade_run
    from laconic.report.export import export
    from laconic.report.tables import write_summary

    write_summary(grade_run(run), "json" if as_json else "terminal")
    if exported:
        export(run, exported)


@app.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--out", required=True, help="The page, one HTML file.")
@click.option("--against", help="The reference run, as a rule the slow parent's.")
def report(runs: tuple[str, ...], out: str, against: str | None) -> None:
    """Write one self-contained HTML page about run folders."""
    from laconic.report.page import report as run

    _print(str(run(runs, out, against=against)))


@app.command()
@click.argument("model")
@click.option("--quick", help="The System-1 parent, to compare with.")
@click.option("--slow", help="The System-2 parent, to compare with.")
@click.option("--task", help="Take ten questions of this task.")
@click.option("--max-tokens", type=int, default=1024, show_default=True)
@click.option("--device", help="cpu, cuda, cuda:1 ...")
@click.option("--dtype", help="float32, bfloat16 or float16.")
@JSON
def smoke(model: str, quick: str | None, slow: str | None, as_json: bool, **options: Any) -> int:
    """Check a merge in a minute: ten prompts, tags, stops, loops, noise, against its parents."""
    from laconic.smoke import smoke as run

    parents = {role: path for role, path in (("quick", quick), ("slow", slow)) if path}
    found = run(model, parents, **options)
    _print(found.to_dict() if as_json else "\n".join(found.lines()))
    return 0 if found.ok else 2


@app.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--against", help="The reference run, as a rule the slow parent's.")
@click.option("--groups", is_flag=True, help="A line per task and level too.")
@click.option("--force", is_flag=True, help="Compare runs that differ in what they asked.")
@click.option(
    "--format",
    "layout",
    type=click.Choice(["terminal", "markdown"]),
    default="terminal",
    show_default=True,
)
@JSON
def compare(
    runs: tuple[str, ...],
    against: str | None,
    groups: bool,
    force: bool,
    layout: str,
    as_json: bool,
) -> None:
    """Compare run folders: accuracy and tokens side by side, with paired intervals."""
    from laconic.grade.comparisons import compare as run
    from laconic.report.tables import comparison_table, write_comparison, write_table

    found = run(runs, against, force=force)
    write_comparison(found, "json" if as_json else layout)
    if groups and not as_json:
        write_table(comparison_table(found, groups=True), layout)


@app.command()
@click.option("--out", default="demo-out", show_default=True, help="Where everything is left.")
@click.option("--all", "every", is_flag=True, help="Every method, with a small search for each.")
@JSON
def demo(out: str, every: bool, as_json: bool) -> None:
    """Merge the bundled pair in several ways, measure them all, and print the table."""
    from laconic.demo.families import EVERY, FAMILIES, NEEDS_MORE_PARENTS
    from laconic.demo.showcase import demo as run
    from laconic.report.tables import comparison_table, write_table

    found = run(out, families=EVERY if every else FAMILIES)
    if as_json:
        _print(found.to_dict())
        return
    write_table(comparison_table(found.comparison, methods=False))
    _print("\n".join(found.remarks()))
    if every:
        _print(f"Not tried, for they need more parents: {', '.join(NEEDS_MORE_PARENTS)}.")


@app.command()
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
        _print(rows[0] if name else rows)
    elif name:
        _print(found[name][0].to_yaml())
    else:
        _print("\n".join(_recipe_line(one, about) for one, (_, about) in found.items()))


@app.command()
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
        _print(found.to_dict())
        return
    kinds = ", ".join(f"{kind} ({found.samples.get(kind, 0)} samples)" for kind in found.kinds)
    done = "still holds" if found.reused else "now holds"
    _print(f"{found.path} {done} {kinds}; name it in the recipe as  statistics: {found.path}")


@app.command()
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
    _print(found.to_dict() if as_json else "\n".join(found.lines()))


@app.command()
@click.option("--quick", required=True, help="The System-1 parent: folder or Hub id.")
@click.option("--slow", required=True, help="The System-2 parent: folder or Hub id.")
@click.option("--task", default="arithmetic", show_default=True, help="Whose questions are asked.")
@click.option("--split", default="validation", show_default=True)
@click.option("--limit", type=int, default=64, show_default=True, help="Questions.")
@click.option("--step", type=float, default=0.1, show_default=True, help="Of the first sweep.")
@click.option("--max-tokens", type=int, default=4096, show_default=True, help="Per response.")
@JSON
def stages(
    quick: str,
    slow: str,
    task: str,
    split: str,
    limit: int,
    step: float,
    max_tokens: int,
    as_json: bool,
) -> None:
    """Sweep the interpolation from quick to slow and find where thinking begins and settles."""
    from laconic.grade.tasks import load_task
    from laconic.run.sampling import Sampling
    from laconic.stages import stages as run

    asked = load_task(task, split, limit=limit)
    samples = [asked.sample(question) for question in asked.questions]
    sampling = Sampling(max_tokens, 0.6, 0.95, 0, 4)
    found = run(quick, slow, samples, step=step, sampling=sampling)
    _print(found.to_dict() if as_json else "\n".join(found.lines()))


@app.command()
@click.argument("folder")
@click.option("--inputs", is_flag=True, help="Digest the parents' files again too.")
@JSON
def verify(folder: str, inputs: bool, as_json: bool) -> int:
    """Check a merged folder against its laconic.json: tensors, files, recipe."""
    from laconic.checkpoint.manifest import verify as check

    found = check(folder, inputs=inputs)
    if as_json:
        _print(found.to_dict())
    elif found.ok:
        _print(f"{folder}: {found.tensors} tensors and {found.files} files as they were written")
    else:
        _print("\n".join(found.problems))
    return 0 if found.ok else 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit code 0 done, 2 an expected error, 130 interrupted."""
    try:
        code = app.main(args=arguments, prog_name="laconic", standalone_mode=False)
    except LaconicError as error:
        code = _complain(str(error))
    except click.ClickException as error:
        error.show()
        code = 2
    except (KeyboardInterrupt, click.Abort):
        print("interrupted; the same command goes on from here", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        code = 0
    except OSError as error:
        code = _complain(f"{error.filename or 'input or output'}: {error.strerror}")
    sys.exit(code or 0)


def _complain(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _print(value: Any) -> None:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    print(text, flush=True)


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
