"""Run the models of a recipe on calibration text and keep the statistics its methods need."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from laconic.errors import LaconicError
from laconic.models import choose_device, choose_dtype, load_model, load_tokenizer
from laconic.plan import Plan, make_plan
from laconic.provenance import digest_file
from laconic.recipe import Calibration, Recipe
from laconic.statistics import fisher, sequences
from laconic.statistics.channels import channel_means
from laconic.statistics.data import Row, read_rows
from laconic.statistics.keys import TEXTLESS, entry_for, needed_kinds, stages_before
from laconic.statistics.mutual_information import information
from laconic.statistics.sensitivity import layer_sensitivity, logit_distances
from laconic.statistics.sequences import Tokens
from laconic.statistics.store import read_entries, statistics_problems, write_statistics
from laconic.statistics.think import think_inputs
from laconic.statistics.view import Information
from laconic.tensors.source import Source, open_source

BATCH_TOKENS = 2048


@dataclass(frozen=True)
class CalibrationResult:
    """The statistics file, and what went into it.

    `samples`: sequences that each kind was taken from; `skipped`: samples that left no answer
    tokens or trace. `reused`: the file was there and still is what the recipe asks for.
    """

    path: str
    digest: str
    kinds: tuple[str, ...]
    models: dict[str, str]
    samples: dict[str, int]
    skipped: dict[str, int]
    seconds: float
    reused: bool

    def to_dict(self) -> dict[str, Any]:
        """The result as data."""
        return asdict(self)


def calibrate(
    recipe: Recipe,
    out: str | Path,
    *,
    device: str | None = None,
    dtype: str | None = None,
    batch_tokens: int = BATCH_TOKENS,
    force: bool = False,
    progress: bool = True,
) -> CalibrationResult:
    """Gather every kind of statistics that a recipe's methods need into one safetensors file.

    out: the file. device: `cpu`, `cuda` ...; CUDA if there is one. dtype: of the running models;
    bfloat16 on CUDA and float32 on CPU unless given. batch_tokens: most entries of a batch.
    A file that is there is reused when models, data and settings are the same by content, and
    refused when not, unless `force`. Raises LaconicError for anything wrong with recipe, data or
    models.
    """
    began = time.monotonic()
    out = Path(out)
    kinds = needed_kinds(recipe)
    if not kinds:
        raise LaconicError(
            "calibrate: no method of this recipe needs statistics; merge it as it is"
        )
    if recipe.calibration is None and set(kinds) - set(TEXTLESS):
        raise LaconicError(
            f"calibration: missing; {', '.join(kinds)} need text, for example  "
            "calibration: {data: s1k.jsonl, samples: 100}"
        )
    place = choose_device(device)
    dtype = choose_dtype(dtype, place)
    plan = make_plan(recipe, weights=True)
    experts = list(plan.experts)
    wanted = {kind: entry_for(kind, recipe, plan.sources, experts, dtype) for kind in kinds}
    reused = out.is_file() and not force and _check_reuse(out, wanted)
    if not reused:
        run = _Run(plan, experts, place, dtype, batch_tokens)
        for kind in tqdm(kinds, disable=None if progress else True, file=sys.stderr):
            run.take(kind, out)
            run.entries[kind] |= wanted[kind]
        write_statistics(out, run.tensors, run.entries)
    entries = read_entries(out)
    return CalibrationResult(
        path=str(out),
        digest=digest_file(out),
        kinds=kinds,
        models=recipe.roles,
        samples={kind: entries[kind]["samples"] for kind in kinds},
        skipped={kind: entries[kind]["skipped"] for kind in kinds},
        seconds=round(time.monotonic() - began, 3),
        reused=reused,
    )


@dataclass
class _Run:
    """The gathering of all kinds; holds the models that the kind at hand needs, and no others."""

    plan: Plan
    experts: list[str]
    device: torch.device
    dtype: str
    batch_tokens: int
    tensors: dict[str, Tensor] = field(default_factory=dict)
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    _models: dict[Path, Any] = field(default_factory=dict)

    def take(self, kind: str, out: Path) -> None:
        """Gather one kind."""
        self.entries[kind] = {"samples": 0, "skipped": 0}
        if kind == "merged_information":
            self._merged_information(out)
        else:
            getattr(self, f"_{kind}")()

    def _channel_means(self) -> None:
        rows = self._rows("channel_means", sequences.ANSWERS[self._calibration.answers])
        texts = sequences.plain_sequences(self._tokenizer("base"), rows, self._calibration)
        means = channel_means(
            self._model("base"),
            texts,
            batch_tokens=self.batch_tokens,
            skip_first_token=self._calibration.skip_first_token,
        )
        self._count("channel_means", rows, texts)
        self.tensors |= {f"channel_means/{module}": mean for module, mean in means.items()}

    def _crossed_sensitivity(self) -> None:
        quick, slow = self.experts
        self._sensitivity("crossed_sensitivity", {quick: "long", slow: "short"})

    def _task_sensitivity(self) -> None:
        self._sensitivity("task_sensitivity", self._own_answers())

    def _sensitivity(self, kind: str, answers: Mapping[str, str]) -> None:
        rows = self._rows(kind, tuple(answers.values()))
        sums = []
        for role, which in answers.items():
            texts = sequences.answer_sequences(
                self._tokenizer(role), rows, which, self._calibration
            )
            self._count(kind, rows, texts)
            sums.append(layer_sensitivity(self._model(role), texts))
        self.tensors[kind] = torch.stack(sums)

    def _logit_distances(self) -> None:
        answers = self._own_answers()
        rows = self._rows("logit_distances", tuple(answers.values()))
        # one tokenizer for all: the same token ids must go through both models
        tokenizer = self._tokenizer(next(iter(self.plan.sources)))
        texts = [
            sequences.answer_sequences(tokenizer, rows, which, self._calibration)
            for which in answers.values()
        ]
        self._count("logit_distances", rows, texts[0])
        models = [self._model(role, keep=True) for role in self.experts]
        self.tensors["logit_distances"] = logit_distances(models, texts)

    def _fisher(self) -> None:
        self.entries["fisher"]["samples"] = fisher.SEQUENCES
        self.tensors["fisher"] = fisher.layer_fisher(self._model("base"), self.plan.recipe.seed)

    def _delta_norms(self) -> None:
        sources = self.plan.sources
        found = fisher.delta_norms(sources["base"], [sources[role] for role in self.experts])
        self.tensors["delta_norms"] = found

    def _think_inputs(self) -> None:
        slow = self.experts[-1]
        tokenizer = self._tokenizer(slow)
        sequences.think_ids(tokenizer)
        rows = self._rows("think_inputs", ("long",))
        texts = sequences.think_sequences(tokenizer, rows, self._calibration)
        self._count("think_inputs", rows, texts)
        found = think_inputs(self._model(slow), texts)
        self.tensors |= {f"think_inputs/{module}": inputs for module, inputs in found.items()}

    def _expert_information(self) -> None:
        texts = self._questions("expert_information")
        base = self._model("base")
        others = [self._model(role, keep=True) for role in self.experts]
        self._add_information("expert_information", information(base, others, texts))

    def _merged_information(self, out: Path) -> None:
        """Make the merge that ACM will wrap, and compare its activations with the base's."""
        from laconic.merging.engine import merge

        texts = self._questions("merged_information")
        recipe = self.plan.recipe
        stages = stages_before(recipe, "merged_information")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".calibrate-") as folder:
            known = Path(folder) / "statistics.safetensors"
            if self.tensors:
                write_statistics(known, self.tensors, self._known_entries())
            update = {"merge": stages, "statistics": str(known)}
            merge(recipe.model_copy(update=update), Path(folder) / "merged", progress=False)
            merged = load_model(open_source(Path(folder) / "merged"), self.device, self.dtype)
            found = information(self._model("base"), [merged], texts)
        self._add_information("merged_information", found)

    def _known_entries(self) -> dict[str, dict[str, Any]]:
        """The entries of what was gathered so far, for the merge before ACM."""
        recipe, sources = self.plan.recipe, self.plan.sources
        return {
            kind: entry | entry_for(kind, recipe, sources, self.experts, self.dtype)
            for kind, entry in self.entries.items()
        }

    def _add_information(self, kind: str, tables: Sequence[Information]) -> None:
        self.entries[kind] |= {"groups": list(tables[0].groups), "tables": len(tables)}
        for index, table in enumerate(tables):
            self.tensors[f"{kind}/{index}/exact"] = table.exact
            self.tensors[f"{kind}/{index}/hist"] = table.hist

    def _own_answers(self) -> dict[str, str]:
        """Which answers are each expert's own: long for the slow model, short for the quick one."""
        default = "long" if self._calibration.answers == "slow" else "short"
        own = {"quick": "short", "slow": "long"}
        return {role: own.get(role, default) for role in self.experts}

    def _questions(self, kind: str) -> list[Tokens]:
        rows = self._rows(kind, ())
        texts = sequences.question_sequences(self._tokenizer("base"), rows, self._calibration)
        self._count(kind, rows, texts)
        return texts

    @property
    def _calibration(self) -> Calibration:
        if self.plan.recipe.calibration is None:
            raise LaconicError("calibration: missing")
        return self.plan.recipe.calibration

    def _rows(self, kind: str, answers: Sequence[str]) -> list[Row]:
        return read_rows(self._calibration, frozenset(answers), self.plan.recipe.seed)

    def _count(self, kind: str, rows: Sequence[Row], texts: Sequence[Tokens]) -> None:
        self.entries[kind]["samples"] += len(texts)
        self.entries[kind]["skipped"] += max(len(rows) - len(texts), 0)

    def _tokenizer(self, role: str) -> Any:
        return load_tokenizer(self.plan.sources[role])

    def _model(self, role: str, *, keep: bool = False) -> Any:
        """Load a role's model, or return it when it is loaded; without `keep` drop all others."""
        source: Source = self.plan.sources[role]
        if not keep:
            self._models = {k: v for k, v in self._models.items() if k == source.folder}
        if source.folder not in self._models:
            self._models[source.folder] = load_model(source, self.device, self.dtype)
        return self._models[source.folder]


def _check_reuse(out: Path, wanted: Mapping[str, Any]) -> bool:
    problems = statistics_problems(read_entries(out), wanted)
    if problems:
        raise LaconicError(
            "\n".join([f"{out}: exists already and is not what this recipe asks for", *problems])
            + "\n--force replaces it"
        )
    return True
