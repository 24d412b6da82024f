"""The DPO baseline: teach a slow model to prefer short answers, by a LoRA adapter merged in.

The one baseline with training in arXiv:2503.20641; the loss is of arXiv:2305.18290. The training
itself is TRL's and the adapter PEFT's, both of the extra `train`.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError
from laconic.models import (
    choose_device,
    choose_dtype,
    load_model,
    load_tokenizer,
    question_prompt,
)
from laconic.recipe import Calibration, Fields
from laconic.records import write_json
from laconic.statistics.data import Row, read_rows
from laconic.tags import THINK, THINK_END
from laconic.tensors.source import open_source

RECORD = "dpo.json"
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""


@dataclass(frozen=True)
class Dpo:
    """The settings of the baseline; those that the paper gives are its own.

    samples: preference pairs. rank: of the adapter, on every linear layer but the head; its scale
    is twice the rank. max_length: tokens of prompt and answer, the rest of the answer is cut.
    epochs over the pairs. Not in the paper: beta, batch (pairs per step), the cosine schedule with
    a tenth of warm-up, and no weight decay.
    """

    samples: int = 1000
    rank: int = 16
    max_length: int = 4096
    learning_rate: float = 5e-5
    epochs: float = 3.0
    beta: float = 0.1
    batch: int = 16
    seed: int = 0


@dataclass(frozen=True)
class DpoResult:
    """A trained model: its folder, the pairs it saw, and the loss of the first and last steps."""

    path: str
    pairs: int
    steps: int
    first_loss: float
    last_loss: float
    last_accuracy: float

    def to_dict(self) -> dict[str, Any]:
        """The result as data."""
        return asdict(self)


def train_dpo(
    model: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    fields: Fields | None = None,
    settings: Dpo | None = None,
    device: str | None = None,
    dtype: str | None = None,
    progress: bool = True,
) -> DpoResult:
    """Train a model to prefer the short answers of data over the long ones, into a new folder.

    model: local folder or Hub id, as a rule the slow parent. data: JSONL with a question, a short
    and a long answer per line (s1K's names unless `fields`). The reference model is the model with
    its adapter off. `last_accuracy`: share of the last step's pairs whose short answer gained more.
    Raises LaconicError for bad data, an output that exists, or when TRL is not installed.
    """
    settings, out = settings or Dpo(), Path(out)
    if out.exists():
        raise LaconicError(f"{out}: exists already; choose another folder, or remove it")
    _require()
    source = open_source(model)
    calibration = Calibration(
        data=str(data), samples=settings.samples, fields=fields or Fields(), select="random"
    )
    rows = read_rows(calibration, frozenset({"short", "long"}), settings.seed)
    place = choose_device(device)
    kind = choose_dtype(dtype, place)
    tokenizer = load_tokenizer(source)
    trained = load_model(source, place, kind)
    pairs = preference_pairs(tokenizer, rows)
    work = out.with_name(f".{out.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    trainer = _trainer(trained, tokenizer, pairs, settings, work, progress)
    with contextlib.redirect_stdout(sys.stderr):  # where the trainer prints its figures
        trainer.train()
    result = _result(out, pairs, trainer.state.log_history)
    _save(trainer.model, tokenizer, work, {"model": str(model), **asdict(settings)}, result)
    os.replace(work, out)
    return result


def preference_pairs(tokenizer: Any, rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return prompt, chosen (short) and rejected (long) answer as texts.

    The prompt is the chat template's, if there is one. Where the template opens the thought, the
    short answer closes it at once and the long one goes on in it; where it does not, both stand
    as they are.
    """
    pairs = []
    for row in rows:
        prompt = question_prompt(tokenizer, row.question)
        short, long = row.answer("short"), row.answer("long")
        if prompt.rstrip().endswith(THINK):
            short = f"{THINK_END}\n\n{short.rpartition(THINK_END)[2].lstrip()}"
            long = long.replace(THINK, "", 1).lstrip()
        pairs.append({"prompt": prompt, "chosen": short, "rejected": long})
    return pairs


def _trainer(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[dict[str, str]],
    settings: Dpo,
    work: Path,
    progress: bool,
) -> Any:
    import datasets
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    each = 1 + (settings.batch % 2 == 0)  # pairs in memory at a time; a step adds them up
    steps = math.ceil(len(pairs) / settings.batch) * settings.epochs
    config = DPOConfig(
        output_dir=str(work),
        beta=settings.beta,
        max_length=settings.max_length,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=each,
        gradient_accumulation_steps=settings.batch // each,
        lr_scheduler_type="cosine",
        warmup_steps=int(WARM_UP * steps),
        weight_decay=0.0,
        gradient_checkpointing=model.device.type == "cuda",
        use_cpu=model.device.type == "cpu",
        bf16=False,
        seed=settings.seed,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=not progress,
    )
    adapter = LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return DPOTrainer(
        model=model,
        args=config,
        train_dataset=datasets.Dataset.from_list(list(pairs)),
        processing_class=tokenizer,
        peft_config=adapter,
    )


def _result(out: Path, pairs: Sequence[Any], history: Sequence[dict[str, float]]) -> DpoResult:
    steps = [entry for entry in history if "loss" in entry]
    return DpoResult(
        path=str(out),
        pairs=len(pairs),
        steps=len(steps),
        first_loss=steps[0]["loss"],
        last_loss=steps[-1]["loss"],
        last_accuracy=steps[-1]["rewards/accuracies"],
    )


def _save(model: Any, tokenizer: Any, work: Path, record: Any, result: DpoResult) -> None:
    merged = model.merge_and_unload()
    merged.save_pretrained(work)
    tokenizer.save_pretrained(work)
    write_json(work / RECORD, {**record, "result": replace(result, path="").to_dict()})


def _require() -> None:
    try:
        import peft  # noqa: F401
        import trl  # noqa: F401
    except ImportError as error:
        raise LaconicError(
            f"the DPO baseline trains with TRL and PEFT, and {error.name} is not installed; "
            "pip install 'laconic[train]'"
        ) from None
