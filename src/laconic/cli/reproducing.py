"""Commands that do published work again."""

from __future__ import annotations

from typing import Any

import click

from laconic.cli.options import (
    BATCH_SIZE,
    DATA,
    DEVICE,
    DTYPE,
    JSON,
    MAX_MODEL_LEN,
    SEED,
    TENSOR_PARALLEL,
    VLLM_ARGUMENTS,
    names,
    show,
)


@click.command()
@click.argument("recipe")
@click.option("--out", required=True, help="The folder of merge, runs and figures.")
@click.option("--tasks", help="Names or NAME=FILE.jsonl, joined by commas; every published one.")
@click.option("--limit", type=click.IntRange(1), help="Questions per task.")
@click.option("--protocol", help="Another than the recipe's own.")
@DATA
@click.option("--engine", default="transformers", show_default=True, help="Or vllm.")
@TENSOR_PARALLEL
@MAX_MODEL_LEN
@VLLM_ARGUMENTS
@DEVICE
@DTYPE
@BATCH_SIZE
@SEED
@JSON
def reproduce(
    recipe: str,
    out: str,
    tasks: str | None,
    limit: int | None,
    protocol: str | None,
    engine: str,
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

    found = run(
        load_recipe(recipe),
        out,
        tasks=names(tasks) if tasks else (),
        protocol=protocol,
        limit=limit,
        seed=seed,
        runner=lambda model: make_runner(engine, model, **options),
    )
    show(found.to_dict() if as_json else "\n".join(found.lines()))
