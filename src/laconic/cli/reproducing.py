"""Commands that do published work again."""

from __future__ import annotations

import os
import shlex
from typing import Any

import click

from laconic.cli.options import JSON, show


@click.command()
@click.argument("recipe")
@click.option("--out", required=True, help="The folder of merge, runs and figures.")
@click.option("--tasks", help="Names or NAME=FILE.jsonl, joined by commas; every published one.")
@click.option("--limit", type=click.IntRange(1), help="Questions per task.")
@click.option("--protocol", help="Another than the recipe's own.")
@click.option("--data", help="Folder with the benchmarks' files; else they come from the Hub.")
@click.option("--engine", default="transformers", show_default=True, help="Or vllm.")
@click.option("--tensor-parallel", type=int, help="GPUs that share each layer (vllm).")
@click.option("--max-model-len", type=int, help="The context window (vllm).")
@click.option("--vllm-args", help="Passed to `vllm serve` as they are, in one string.")
@click.option("--device", help="cpu, cuda, cuda:1 ...")
@click.option("--dtype", help="float32, bfloat16 or float16.")
@click.option("--batch-size", type=int, help="Most responses in the model at a time.")
@click.option("--seed", type=int, default=0, show_default=True)
@JSON
def reproduce(
    recipe: str,
    out: str,
    tasks: str | None,
    limit: int | None,
    protocol: str | None,
    data: str | None,
    engine: str,
    vllm_args: str | None,
    seed: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Merge the published RECIPE, measure it, and print the published figures beside the own.

    A star marks a published accuracy outside the measured 95% interval. The same command goes on
    where it stopped.
    """
    from laconic.recipe import load_recipe
    from laconic.reproduction import reproduce as run
    from laconic.run.engines import make_runner

    if data:
        os.environ["LACONIC_DATA"] = data
    arguments = shlex.split(vllm_args) if vllm_args else None
    found = run(
        load_recipe(recipe),
        out,
        tasks=[one.strip() for one in tasks.split(",")] if tasks else (),
        protocol=protocol,
        limit=limit,
        seed=seed,
        runner=lambda model: make_runner(engine, model, arguments=arguments, **options),
    )
    show(found.to_dict() if as_json else "\n".join(found.lines()))
