"""The engine: streams every tensor of a plan through its chain of methods into a new checkpoint."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from blake3 import blake3
from tqdm import tqdm

from laconic.checkpoint.card import write_card
from laconic.checkpoint.manifest import MANIFEST_FILE, parent_records, read_manifest, write_manifest
from laconic.checkpoint.sidecars import write_sidecars
from laconic.errors import LaconicError
from laconic.merging.mixer import Mixer
from laconic.merging.stream import BLOCK, BlockStream
from laconic.merging.workers import Workers, workers
from laconic.plan import Plan, Step, make_plan
from laconic.provenance import versions
from laconic.recipe import Recipe
from laconic.registry import get_method
from laconic.statistics.store import Statistics, open_statistics
from laconic.tensors.sink import Sink
from laconic.tensors.source import Reader


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


def merge(
    recipe: Recipe,
    out: str | Path,
    *,
    force: bool = False,
    threads: int | None = None,
    block: int = BLOCK,
    progress: bool = True,
) -> MergeResult:
    """Merge as the recipe says into a new folder that `transformers` loads.

    out: a folder that does not exist; with `force` what stands there is replaced whole.
    threads: worker threads, one per processor and at most 8 unless given. block: entries per
    block, even. Neither changes a byte of the result.
    A merge that was killed resumes; a finished one is left as it is. Raises LaconicError for
    anything wrong with recipe, parents, disk or weights.
    """
    began = time.monotonic()
    out = Path(out)
    plan = make_plan(recipe, weights=True)
    _check_output(plan, out)
    statistics = open_statistics(recipe, plan.sources, plan.experts)
    if out.exists() and not force:
        if not _is_this_merge(plan, out, statistics):
            raise LaconicError(f"{out}: exists already; --force replaces it, whole")
        return _result(plan, out, began, resumed=len(plan.steps))
    before = _fingerprints(plan)
    identity = _digest_of(
        {
            "recipe": recipe.to_dict(),
            "parents": before,
            "versions": versions(),
            "statistics": _digest(statistics),
        }
    )
    shard_bytes = recipe.output.shard_bytes
    specs = [step.output for step in plan.steps]
    with (
        Sink.open(out, specs, identity=identity, shard_bytes=shard_bytes) as sink,
        Reader() as reader,
        workers(threads or min(os.cpu_count() or 1, 8)) as pool,
    ):
        resumed = len(sink.digests)
        mixer = Mixer(plan, BlockStream(reader, block), pool, statistics)
        run = _Run(plan, sink, mixer, pool)
        parents = run.merge_all(progress)
        _check_unchanged(before, _fingerprints(plan))
        _complete(sink.folder, plan, parents, sink.digests, statistics)
        sink.publish(force=force)
    return _result(plan, out, began, resumed)


class _Run:
    """The merging of all tensors of a plan that are not done yet."""

    def __init__(self, plan: Plan, sink: Sink, mixer: Mixer, pool: Workers) -> None:
        self._plan, self._sink, self._mixer, self._pool = plan, sink, mixer, pool

    def merge_all(self, progress: bool) -> dict[str, Any]:
        """Merge them, and return name and file digests of every parent, by role."""
        todo = [s for s in self._plan.steps if s.output.name not in self._sink.digests]
        # the largest first, so that no worker is left alone with one at the end
        todo.sort(key=lambda step: -step.output.nbytes)
        if todo:
            self._mixer.survey_model()
        total = sum(step.output.nbytes for step in todo)
        hidden = None if progress else True
        with tqdm(total=total, unit="B", unit_scale=True, disable=hidden, file=sys.stderr) as bar:
            parents: dict[str, Any] = {}
            digest = partial(_digest_parents, self._plan, parents)
            self._pool.run([digest, *(partial(self._merge_step, step, bar) for step in todo)])
        return parents

    def _merge_step(self, step: Step, bar: tqdm[Any]) -> None:
        digest = blake3()
        written = 0
        for block in self._mixer.mix(step):
            raw: Any = block.view(torch.uint8).numpy()
            data = memoryview(raw)
            self._sink.write(step.output.name, written, data)
            digest.update(data)
            written += len(data)
            bar.update(len(data))
        self._sink.finish(step.output.name, digest.hexdigest())


def _result(plan: Plan, out: Path, began: float, resumed: int) -> MergeResult:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = round(time.monotonic() - began, 3)
    count = len(plan.steps)
    return MergeResult(str(out), plan.recipe.hash, count, plan.nbytes, seconds, peak, resumed)


def _is_this_merge(plan: Plan, out: Path, statistics: Statistics | None) -> bool:
    """Whether a finished output was made by this very recipe from these very files."""
    if not (out / MANIFEST_FILE).is_file():
        return False
    manifest = read_manifest(out)
    return bool(
        manifest["recipe_hash"] == plan.recipe.hash
        and manifest["versions"] == versions()
        and manifest["plan"].get("statistics") == _digest(statistics)
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


def _digest_parents(plan: Plan, into: dict[str, Any]) -> None:
    into.update(parent_records(plan.sources))


def _complete(
    folder: Path,
    plan: Plan,
    parents: dict[str, Any],
    tensors: dict[str, str],
    statistics: Statistics | None,
) -> None:
    """Write everything beside the weights; the manifest last, for it holds the others' digests."""
    recipe = plan.recipe
    facts: dict[str, Any] = {
        "untied": plan.untied,
        "tensors": len(plan.steps),
        "bytes": plan.nbytes,
    }
    if statistics:
        facts["statistics"] = statistics.digest
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
        tensors=tensors,
        facts=facts,
    )


def _digest(statistics: Statistics | None) -> str | None:
    return statistics.digest if statistics else None


def _digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
