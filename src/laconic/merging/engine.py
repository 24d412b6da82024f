"""The engine: streams every tensor of a plan through its chain of methods into a new checkpoint."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from laconic.checkpoint.card import write_card
from laconic.checkpoint.manifest import MANIFEST_FILE, parent_records, read_manifest, write_manifest
from laconic.checkpoint.sidecars import write_sidecars
from laconic.errors import LaconicError
from laconic.merging.card import card_named
from laconic.merging.memory import Memory, fit, peak, whole_bytes
from laconic.merging.mixer import Mixer
from laconic.merging.stream import BlockStream
from laconic.merging.sweep import variants
from laconic.merging.workers import Workers, workers
from laconic.plan import Plan, Step, make_plan, replanned
from laconic.provenance import versions
from laconic.recipe import Recipe
from laconic.registry import get_method
from laconic.statistics.store import Statistics, open_statistics
from laconic.tensors.digests import Digests
from laconic.tensors.sink import Sink, check_disk
from laconic.tensors.source import Reader
from laconic.tensors.writer import Stages, TensorWriter


@dataclass(frozen=True)
class MergeResult:
    """What a merge did, and at what cost: wall seconds, bytes of peak resident memory.

    `resumed`: tensors that an earlier, killed run had finished already.
    """

    path: str
    recipe_hash: str
    tensors: int
    bytes: int
    seconds: float
    peak_memory: int
    resumed: int

    def to_dict(self) -> dict[str, Any]:
        """The result as data."""
        return asdict(self)

    def line(self) -> str:
        """The result for the terminal."""
        resumed = f" (resumed after {self.resumed} tensors)" if self.resumed else ""
        return (
            f"{self.path}: {self.tensors} tensors, {self.bytes:,} bytes in {self.seconds:.1f} s, "
            f"peak memory {self.peak_memory / 2**20:,.0f} MiB, recipe {self.recipe_hash}{resumed}"
        )


def merge(
    recipe: Recipe,
    out: str | Path,
    *,
    force: bool = False,
    threads: int | None = None,
    block: int | None = None,
    memory: int | None = None,
    device: str | None = None,
    progress: bool = True,
) -> MergeResult:
    """Merge as the recipe says into a new folder that `transformers` loads.

    out: a folder that does not exist; with `force` what stands there is replaced whole.
    threads: worker threads, one per processor and at most 8 unless given. block: entries per
    block, even. memory: most resident bytes of the process. None of them changes a byte of the
    result. device: a card of torch to compute on, such as `cuda`, which may round the last bit
    otherwise than the processor. A merge that was killed resumes; a finished one is left as it is.
    Raises LaconicError for anything wrong with recipe, parents, memory, disk, device or weights.
    """
    plan = make_plan(recipe, weights=True)
    card = card_named(device)
    settings = fit(plan, memory, threads=threads, block=block, card=card)
    return _merge_all([_Target(plan, Path(out), settings)], settings, force, progress)[0]


def sweep(
    recipe: Recipe,
    setting: str,
    out: str | Path,
    *,
    force: bool = False,
    threads: int | None = None,
    memory: int | None = None,
    device: str | None = None,
    progress: bool = True,
) -> list[MergeResult]:
    """Merge once for every value of a knob, reading the parents once.

    setting: `alpha=0.3:0.9:0.1` (the last value included) or `alpha=0.3,0.5`; METHOD.KNOB where
    several methods have the knob. Each merge becomes OUT/KNOB-VALUE and is what `merge` would
    write there, byte for byte. Raises LaconicError like `merge`, and for a knob that is not there.
    """
    plan = make_plan(recipe, weights=True)
    recipes, card = variants(recipe, setting), card_named(device)
    settings = fit(plan, memory, threads=threads, outputs=len(recipes), card=card)
    targets = [
        _Target(replanned(plan, variant), Path(out) / name, settings)
        for name, variant in recipes.items()
    ]
    return _merge_all(targets, settings, force, progress)


class _Target:
    """One output of a run: its plan, its folder and, while it is being made, sink and mixer."""

    sink: Sink
    mixer: Mixer

    def __init__(self, plan: Plan, out: Path, settings: Memory) -> None:
        self.plan, self.out = plan, out
        self.device = settings.card.device.type if settings.card else "cpu"
        _check_output(plan, out)
        self.statistics = open_statistics(plan.recipe, plan.sources, plan.experts)
        self.resumed = 0

    def is_done(self, force: bool) -> bool:
        """Whether the output is there already; LaconicError when something else is."""
        if force or not self.out.exists():
            return False
        if not _is_this_merge(self.plan, self.out, self.statistics, self.device):
            raise LaconicError(f"{self.out}: exists already; --force replaces it, whole")
        self.resumed = len(self.plan.steps)
        return True

    def open(self, fingerprints: dict[str, list[int]]) -> AbstractContextManager[Sink]:
        """Open its sink, for these parents' files."""
        identity = {
            "recipe": self.plan.recipe.to_dict(),
            "parents": fingerprints,
            "versions": versions(),
            "statistics": _digest(self.statistics),
            "device": self.device,
        }
        specs = [step.output for step in self.plan.steps]
        shard_bytes = self.plan.recipe.output.shard_bytes
        return Sink.open(self.out, specs, identity=_digest_of(identity), shard_bytes=shard_bytes)


def _merge_all(
    targets: Sequence[_Target], settings: Memory, force: bool, progress: bool
) -> list[MergeResult]:
    began = time.monotonic()
    todo = [target for target in targets if not target.is_done(force)]
    if todo:
        _merge_targets(todo, settings, force, progress)
    return [_result(t.plan, t.out, began, t.resumed) for t in targets]


def _merge_targets(
    targets: Sequence[_Target], settings: Memory, force: bool, progress: bool
) -> None:
    plan = targets[0].plan
    before = _fingerprints(plan)
    check_disk([(target.out, target.plan.nbytes) for target in targets])
    with ExitStack() as stack:
        for target in targets:
            target.sink = stack.enter_context(target.open(before))
            target.resumed = len(target.sink.digests)
        reader = stack.enter_context(Reader())
        pool = stack.enter_context(workers(settings.threads))
        digests, room = Digests(), settings.room()
        stream = BlockStream(
            reader, settings.block, held=settings.held, digests=digests, card=settings.card
        )
        for target in targets:
            target.mixer = Mixer(target.plan, stream, pool, target.statistics, room)
        hands = stack.enter_context(ThreadPoolExecutor(settings.threads))
        stages = Stages(settings.stage, pinned=bool(settings.card and settings.card.pins))
        _Run(targets, pool, digests, stages, hands).merge_all(progress)
        parents = _parent_records(plan, digests, pool)
        _check_unchanged(before, _fingerprints(plan))
        for target in targets:
            _complete(target, parents)
            target.sink.publish(force=force)


class _Run:
    """The merging of all tensors that are not done yet, those of several outputs together."""

    def __init__(
        self,
        targets: Sequence[_Target],
        pool: Workers,
        digests: Digests,
        stages: Stages,
        hands: Executor,
    ) -> None:
        self._targets, self._pool, self._digests = targets, pool, digests
        self._stages, self._hands = stages, hands

    def merge_all(self, progress: bool) -> None:
        """Merge them, largest first, on all workers."""
        self._recall_inputs()
        todo = [waiting for steps in self._steps() if (waiting := self._waiting(steps))]
        # the largest first, so that no worker is left alone with one at the end
        todo.sort(key=lambda waiting: -waiting[0][1].output.nbytes)
        for target in {id(t): t for waiting in todo for t, _ in waiting}.values():
            target.mixer.survey_model()
        total = sum(step.output.nbytes for waiting in todo for _, step in waiting)
        hidden = None if progress else True
        with tqdm(total=total, unit="B", unit_scale=True, disable=hidden, file=sys.stderr) as bar:
            self._pool.run(partial(self._merge_steps, waiting, bar) for waiting in todo)

    def _steps(self) -> Iterator[tuple[Step, ...]]:
        """Yield, tensor by tensor, every output's step."""
        return zip(*(target.plan.steps for target in self._targets), strict=True)

    def _waiting(self, steps: tuple[Step, ...]) -> list[tuple[_Target, Step]]:
        pairs = zip(self._targets, steps, strict=True)
        return [(t, step) for t, step in pairs if step.output.name not in t.sink.digests]

    def _recall_inputs(self) -> None:
        """Note the digests of what the tensors done by an earlier run were made of."""
        for target in self._targets:
            for step in target.plan.steps:
                known = target.sink.inputs.get(step.output.name, {})
                for tensor in step.inputs:
                    if tensor.stored and tensor.role in known:
                        self._digests.put(tensor.stored, known[tensor.role])

    def _merge_steps(self, waiting: list[tuple[_Target, Step]], bar: tqdm[Any]) -> None:
        """Make one tensor of each output, block by block in turn: its inputs are read once."""
        if whole_bytes(waiting[0][1]):  # too large to hold for several at a time
            for one in waiting:
                self._merge_together([one], bar)
        else:
            self._merge_together(waiting, bar)

    def _merge_together(self, waiting: list[tuple[_Target, Step]], bar: tqdm[Any]) -> None:
        writers = [self._writer(target, step) for target, step in waiting]
        mixed = [
            target.mixer.mix(step, writer.space)
            for (target, step), writer in zip(waiting, writers, strict=True)
        ]
        for blocks in zip(*mixed, strict=True):
            for writer, block in zip(writers, blocks, strict=True):
                bar.update(writer.add(len(block)))
        for (target, step), writer in zip(waiting, writers, strict=True):
            self._finish(target, step, writer.finish())

    def _writer(self, target: _Target, step: Step) -> TensorWriter:
        return target.sink.writer(step.output.name, self._stages, self._hands)

    def _finish(self, target: _Target, step: Step, digest: str) -> None:
        """Note in the journal that a tensor is whole, and what it was made of."""
        inputs = {t.role: self._digests.of(t.stored) for t in step.inputs if t.stored}
        target.sink.finish(step.output.name, digest, inputs)


def _result(plan: Plan, out: Path, began: float, resumed: int) -> MergeResult:
    seconds = round(time.monotonic() - began, 3)
    count = len(plan.steps)
    return MergeResult(str(out), plan.recipe.hash, count, plan.nbytes, seconds, peak(), resumed)


def _is_this_merge(plan: Plan, out: Path, statistics: Statistics | None, device: str) -> bool:
    """Whether a finished output was made by this very recipe from these very files."""
    if not (out / MANIFEST_FILE).is_file():
        return False
    manifest = read_manifest(out)
    return bool(
        manifest["recipe_hash"] == plan.recipe.hash
        and manifest["versions"] == versions()
        and manifest["plan"].get("statistics") == _digest(statistics)
        and manifest["plan"].get("device", "cpu") == device
        and manifest["parents"] == parent_records(plan.sources)
    )


def _check_output(plan: Plan, out: Path) -> None:
    target = out.resolve()
    for role, source in plan.sources.items():
        parent = source.folder.resolve()
        if target == parent or parent in target.parents or target in parent.parents:
            raise LaconicError(
                f"{out}: is, or lies inside, or holds the {role} model's folder {source.folder}; "
                "choose another output folder"
            )


def _fingerprints(plan: Plan) -> dict[str, list[int]]:
    """Size and modification time of every file a merge reads."""
    files = {file for source in plan.sources.values() for file in source.files}
    stats = {str(file.resolve()): file.stat() for file in sorted(files)}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _check_unchanged(before: dict[str, list[int]], after: dict[str, list[int]]) -> None:
    for file, fingerprint in before.items():
        if after[file] != fingerprint:
            raise LaconicError(f"{file}: changed while it was being merged; run the merge again")


def _parent_records(plan: Plan, digests: Digests, pool: Workers) -> dict[str, Any]:
    """Return name and file digests of every parent; reads only what the merge did not."""
    files = {file for source in plan.sources.values() for file in source.files}
    pool.run(partial(digests.of, tensor) for tensor in digests.missing(sorted(files)))
    return parent_records(plan.sources, digests)


def _complete(target: _Target, parents: dict[str, Any]) -> None:
    """Write everything beside the weights; the manifest last, for it holds the others' digests."""
    plan, folder = target.plan, target.sink.folder
    recipe = plan.recipe
    facts: dict[str, Any] = {
        "untied": plan.untied,
        "tensors": len(plan.steps),
        "bytes": plan.nbytes,
        "device": target.device,
    }
    if target.statistics:
        facts["statistics"] = target.statistics.digest
    write_sidecars(
        folder,
        plan.sources,
        tokenizer_role=recipe.output.tokenizer,
        untied=plan.untied,
        dtype=recipe.output.dtype,
    )
    methods = [(stage.method, get_method(stage.method).source) for stage in recipe.merge]
    write_card(
        folder, recipe=recipe, sources=plan.sources, methods=methods, diagnosis=plan.diagnosis
    )
    write_manifest(
        folder,
        recipe=recipe.to_dict(),
        recipe_hash=recipe.hash,
        parents=parents,
        tensors=target.sink.digests,
        facts=facts,
    )


def _digest(statistics: Statistics | None) -> str | None:
    return statistics.digest if statistics else None


def _digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
