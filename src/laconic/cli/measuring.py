"""Commands that run models and measure them."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import click

from laconic.cli.options import (
    AGAINST,
    BATCH_SIZE,
    DATA,
    DEVICE,
    DTYPE,
    JSON,
    MAX_MODEL_LEN,
    PROTOCOL,
    SEED,
    TENSOR_PARALLEL,
    VLLM_ARGUMENTS,
    names,
    show,
)

SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "n")
ALLOW_CODE = click.option(
    "--allow-code-execution",
    is_flag=True,
    help="Run the programs that a model writes, in a sandbox; tasks of code need it.",
)


@click.command("eval")
@click.argument("model")
@click.option("--tasks", required=True, help="Names, NAME=FILE.jsonl or files, joined by commas.")
@click.option("--out", required=True, help="The run folder; the same command goes on with it.")
@click.option("--split", default="test", show_default=True)
@click.option("--limit", type=int, help="Questions per task, each level in proportion.")
@PROTOCOL
@DATA
@click.option("--engine", default="transformers", show_default=True, help="Or server, or vllm.")
@click.option("--url", help="Of an OpenAI-compatible server, with --engine server.")
@click.option("--tokenizer", help="Folder or Hub id of the model's tokenizer (server, vllm).")
@click.option("--concurrency", type=int, help="Most requests under way at once (server, vllm).")
@click.option("--vllm-command", "command", help="The vllm program, when it is not on PATH.")
@TENSOR_PARALLEL
@MAX_MODEL_LEN
@VLLM_ARGUMENTS
@click.option("--max-tokens", type=int, help="Per response; 4096 unless the protocol says.")
@click.option("--temperature", type=float, help="0, the default, is greedy.")
@click.option("--top-p", type=float)
@click.option("--top-k", type=int, help="0 is off.")
@click.option("--n", type=int, help="Responses per question.")
@SEED
@DEVICE
@DTYPE
@BATCH_SIZE
@click.option("--name", help="What the run is called in tables.")
@ALLOW_CODE
@JSON
def evaluate(
    model: str,
    tasks: str,
    out: str,
    split: str,
    limit: int | None,
    protocol: str | None,
    engine: str,
    seed: int,
    name: str | None,
    allow_code_execution: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Measure the accuracy and the response length of MODEL on tasks."""
    from laconic.grade.evaluation import check_tasks
    from laconic.grade.evaluation import evaluate as run
    from laconic.grade.protocols import get_protocol
    from laconic.grade.tasks import load_task
    from laconic.report.tables import write_summary
    from laconic.run.engines import make_runner
    from laconic.run.runner import closing
    from laconic.run.sampling import Sampling

    sampling = {knob: options.pop(knob) for knob in SAMPLING}
    given = {knob: value for knob, value in sampling.items() if value is not None}
    usual = get_protocol(protocol).sampling if protocol else Sampling()
    loaded = [load_task(task, split, limit=limit, seed=seed) for task in names(tasks)]
    check_tasks(loaded, protocol, allow_code_execution)
    with closing(make_runner(engine, model, **options)) as runner:
        summary = run(
            model,
            loaded,
            out=out,
            split=split,
            protocol=protocol,
            sampling=replace(usual, **given, seed=seed),
            limit=limit,
            seed=seed,
            runner=runner,
            name=name,
            allow_code_execution=allow_code_execution,
        )
    write_summary(summary, "json" if as_json else "terminal")


@click.command()
@JSON
def tasks(as_json: bool) -> None:
    """List the tasks with their source and licence."""
    from laconic.grade.tasks import tasks as known

    found = known()
    if as_json:
        show([asdict(task) for task in found])
    else:
        show(
            "\n".join(
                f"{t.name:<16}{t.questions or '-':>6}  {t.source} ({t.licence})" for t in found
            )
        )


@click.command()
@click.argument("run")
@click.option("--export", "exported", help="Write lm-eval's sample files into this folder too.")
@click.option("--grader", default="laconic", show_default=True, help="Or qwen_compat.")
@ALLOW_CODE
@JSON
def regrade(
    run: str, exported: str | None, grader: str, allow_code_execution: bool, as_json: bool
) -> None:
    """Grade RUN's stored responses again, without generating."""
    from laconic.grade.evaluation import grade_run
    from laconic.report.export import export
    from laconic.report.tables import write_summary

    found = grade_run(run, grader=grader, allow_code_execution=allow_code_execution)
    click.echo(f"graded by the rules of {' '.join(found.grader.values())}", err=True)
    write_summary(found, "json" if as_json else "terminal")
    if exported:
        export(run, exported)


@click.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--out", required=True, help="The page, one HTML file.")
@AGAINST
def report(runs: tuple[str, ...], out: str, against: str | None) -> None:
    """Write one self-contained HTML page about run folders."""
    from laconic.report.page import report as run

    show(str(run(runs, out, against=against)))


@click.command()
@click.argument("model")
@click.option("--quick", help="The System-1 parent, to compare with.")
@click.option("--slow", help="The System-2 parent, to compare with.")
@click.option("--task", help="Take ten questions of this task.")
@click.option("--max-tokens", type=int, default=1024, show_default=True)
@DEVICE
@DTYPE
@JSON
def smoke(model: str, quick: str | None, slow: str | None, as_json: bool, **options: Any) -> int:
    """Check a merge in a minute: ten prompts, tags, stops, loops, noise, against its parents."""
    from laconic.smoke import smoke as run

    parents = {role: path for role, path in (("quick", quick), ("slow", slow)) if path}
    found = run(model, parents, **options)
    show(found.to_dict() if as_json else "\n".join(found.lines()))
    return 0 if found.ok else 2


@click.command()
@click.argument("runs", nargs=-1, required=True)
@AGAINST
@click.option("--groups", is_flag=True, help="A second table, by task and level.")
@click.option("--long", "every", is_flag=True, help="Every measure, one line each.")
@click.option("--force", is_flag=True, help="Compare runs that differ in what they asked.")
@click.option(
    "--format",
    "layout",
    type=click.Choice(["terminal", "md", "csv", "latex", "json"]),
    default="terminal",
    show_default=True,
    help="csv and json hold every measure; --json is short for json.",
)
@JSON
def compare(
    runs: tuple[str, ...],
    against: str | None,
    groups: bool,
    every: bool,
    force: bool,
    layout: str,
    as_json: bool,
) -> None:
    """Compare run folders: accuracy and tokens side by side, with paired intervals."""
    from laconic.grade.comparisons import compare as run
    from laconic.report.tables import write_comparison

    found = run(runs, against, force=force)
    write_comparison(found, "json" if as_json else layout, groups=groups, long=every)


@click.command()
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
    show(found.to_dict() if as_json else "\n".join(found.lines()))


@click.command()
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
        show(found.to_dict())
        return
    write_table(comparison_table(found.comparison, methods=False))
    show("\n".join(found.remarks()))
    if every:
        show(f"Not tried, for they need more parents: {', '.join(NEEDS_MORE_PARENTS)}.")
