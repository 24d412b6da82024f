"""Commands that train."""

from __future__ import annotations

from typing import Any

import click

from laconic.cli.options import JSON, show
from laconic.errors import LaconicError, unknown


@click.command()
@click.argument("model")
@click.argument("out")
@click.option("--data", required=True, help="JSONL with a question, a short and a long answer.")
@click.option(
    "--field", "named", multiple=True, metavar="KEY=NAME", help="Of question, short or long."
)
@click.option("--samples", type=click.IntRange(1), help="Preference pairs; 1000.")
@click.option("--epochs", type=click.FloatRange(0, min_open=True), help="Over the pairs; 3.")
@click.option("--learning-rate", type=click.FloatRange(0, min_open=True), help="5e-5.")
@click.option("--rank", type=click.IntRange(1), help="Of the LoRA adapter; 16.")
@click.option("--beta", type=click.FloatRange(0, min_open=True), help="0.1.")
@click.option("--batch", type=click.IntRange(1), help="Pairs per step; 16.")
@click.option("--max-length", type=click.IntRange(2), help="Tokens of prompt and answer; 4096.")
@click.option("--seed", type=click.IntRange(0), help="0.")
@click.option("--device", help="cpu, cuda ...; CUDA if there is one.")
@click.option("--dtype", help="Of the model; bfloat16 on CUDA, float32 on CPU.")
@JSON
def dpo(
    model: str,
    out: str,
    data: str,
    named: tuple[str, ...],
    device: str | None,
    dtype: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train MODEL to prefer short answers into the folder OUT: the paper's baseline with training.

    Needs the extra `train`.
    """
    from laconic.training.dpo import Dpo, train_dpo

    found = train_dpo(
        model,
        data,
        out,
        fields=_fields(named),
        settings=Dpo(**{knob: value for knob, value in settings.items() if value is not None}),
        device=device,
        dtype=dtype,
    )
    if as_json:
        show(found.to_dict())
        return
    show(
        f"{found.path}: {found.steps} steps over {found.pairs} pairs, loss {found.first_loss:.4f} "
        f"to {found.last_loss:.4f}; measure it with `laconic eval {found.path}`"
    )


def _fields(named: tuple[str, ...]) -> Any:
    from laconic.recipe import Fields

    given = dict(one.partition("=")[::2] for one in named)
    for key, name in given.items():
        if key not in Fields.model_fields:
            raise unknown("field", key, Fields.model_fields)
        if not name:
            raise LaconicError(f"--field {key}: expected KEY=NAME, such as short=solution")
    return Fields(**given)
