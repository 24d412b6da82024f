"""The examiner: one live model, the parents in memory, the questions; asks any merge of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from laconic.checkpoint.manifest import MANIFEST_FILE
from laconic.errors import LaconicError
from laconic.grade.grades import Asked, grade
from laconic.grade.protocols import cut_at
from laconic.merging.engine import merge
from laconic.merging.live import LiveMerge
from laconic.plan import Plan, make_plan
from laconic.recipe import Recipe, parse_recipe
from laconic.run.completion import Completion
from laconic.run.runner import Key, Runner
from laconic.run.sampling import Sampling
from laconic.run.transformers import TransformersRunner
from laconic.searching.outcomes import Outcome, outcome_of
from laconic.searching.questions import Exam
from laconic.searching.study_file import Study


@dataclass(frozen=True)
class Setting:
    """What an examiner is opened with; it crosses to other processes and machines.

    shell: a merged checkpoint of the parents, which the live model opens with: its config,
    tokenizer and dtype are those of every merge of the study.
    """

    shell: str
    common: Mapping[str, Any]
    exam: Exam
    device: str | None = None
    dtype: str | None = None
    batch_size: int | None = None
    threads: int | None = None


class Examiner(Protocol):
    """Whoever can say what a merge answers."""

    def ask(
        self, recipe: Mapping[str, Any], ids: Sequence[str], limit: int, done: Collection[Key] = ()
    ) -> list[Outcome]:
        """Ask a merge the questions of these ids, `limit` tokens each at most.

        recipe: its dictionary form. done: what need not be asked. Raises LaconicError when the
        merge or the device refuses.
        """
        ...

    def close(self) -> None:
        """Give back the model."""
        ...


class LiveExaminer:
    """An examiner in this process. runner: opened here on the shell unless given."""

    def __init__(self, setting: Setting, runner: Runner | None = None) -> None:
        self._setting = setting
        self.live = LiveMerge(ends(setting.common)["slow"], threads=setting.threads)
        self.runner: Runner = runner or TransformersRunner(
            setting.shell,
            device=setting.device,
            dtype=setting.dtype,
            batch_size=setting.batch_size,
        )
        self._samples = {sample.id: sample for sample in setting.exam.samples}
        self._asked = {asked.id: asked for asked in setting.exam.asked}
        self._loaded: str | None = None

    @property
    def sampling(self) -> Sampling:
        """How responses are drawn, without a search's token limit."""
        return self._setting.exam.sampling

    def ask(
        self, recipe: Mapping[str, Any], ids: Sequence[str], limit: int, done: Collection[Key] = ()
    ) -> list[Outcome]:
        """Merge into the live model, unless it is there already, and ask."""
        self.load(parse_recipe(recipe))
        exam = self._setting.exam
        sampling = replace(exam.sampling, max_tokens=min(limit, exam.sampling.max_tokens))
        samples = [self._samples[id] for id in ids]
        return [
            _judged(self._asked[completion.id], completion, exam.stops)
            for completion in self.runner.generate(samples, sampling, done)
        ]

    def load(self, recipe: Recipe) -> None:
        """Merge into the live model."""
        if self._loaded != recipe.hash:
            self._loaded = None
            self.runner.load(self.live.tensors(recipe))
            self._loaded = recipe.hash

    def close(self) -> None:
        """Nothing is held outside this process."""


def ends(common: Mapping[str, Any]) -> dict[str, Recipe]:
    """The recipes of the parents themselves, in the form that merges have."""
    plain = {key: value for key, value in common.items() if key != "rules"}
    return {
        role: parse_recipe({**plain, "merge": [{"interpolation": {"weight": weight}}]})
        for role, weight in (("quick", 0.0), ("slow", 1.0))
    }


def make_shell(common: Mapping[str, Any], folder: Path) -> Path:
    """Write, once, the slow parent as a merge would be written: what live models open with."""
    if not (folder / MANIFEST_FILE).is_file():
        merge(ends(common)["slow"], folder, progress=False)
    return folder


def pair_plan(common: Mapping[str, Any]) -> Plan:
    """The plan of an interpolation: two experts per step, quick and slow."""
    return make_plan(ends(common)["slow"], weights=True)


def shared(study: Study) -> dict[str, Any]:
    """The keys that all recipes of a study share, checked as a recipe."""
    common = study.common()
    try:
        ends(common)
    except LaconicError as error:
        raise LaconicError(f"study {study.name}: {error}") from None
    return common


def _judged(asked: Asked, completion: Completion, stops: tuple[str, ...]) -> Outcome:
    cut = replace(completion, text=cut_at(completion.text, stops))
    return outcome_of(grade(asked, cut), cut)
