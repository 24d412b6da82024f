"""Options and output that commands share."""

from __future__ import annotations

import json
import os
import shlex
from typing import Any

import click


def _name_data(context: click.Context, option: click.Parameter, folder: str | None) -> None:
    if folder:
        from laconic.grade.benchmarks import FOLDER_VARIABLE

        os.environ[FOLDER_VARIABLE] = folder


def _split(context: click.Context, option: click.Parameter, line: str | None) -> list[str] | None:
    try:
        return shlex.split(line) if line else None
    except ValueError as error:
        raise click.BadParameter(f"{line!r} is not split as a shell would: {error}") from None


JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON value on stdout.")
AGAINST = click.option("--against", help="The reference run, as a rule the slow parent's.")
PROTOCOL = click.option("--protocol", help="How questions are put and answers sampled, by name.")
SEED = click.option("--seed", type=int, default=0, show_default=True)
DATA = click.option(
    "--data",
    expose_value=False,
    callback=_name_data,
    help="Folder with the benchmarks' files; else they come from the Hub.",
)
TENSOR_PARALLEL = click.option(
    "--tensor-parallel", type=int, help="GPUs that share each layer (vllm)."
)
MAX_MODEL_LEN = click.option("--max-model-len", type=int, help="The context window (vllm).")
VLLM_ARGUMENTS = click.option(
    "--vllm-args",
    "arguments",
    callback=_split,
    help="Passed to `vllm serve` as they are, in one string.",
)
DEVICE = click.option("--device", help="cpu, cuda, cuda:1 ...")
DTYPE = click.option("--dtype", help="float32, bfloat16 or float16.")
BATCH_SIZE = click.option("--batch-size", type=int, help="Most responses in the model at a time.")


def names(text: str) -> list[str]:
    """The names in an option that joins them by commas."""
    return [name.strip() for name in text.split(",")]


def show(value: Any) -> None:
    """Print text, or anything else as JSON, on stdout."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    print(text, flush=True)
