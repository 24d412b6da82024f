"""laconic.json: what an output was made from and holds, and the check that it still does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from laconic.checkpoint.sidecars import write_json
from laconic.errors import LaconicError
from laconic.provenance import digest_file, versions
from laconic.records import read_json
from laconic.tensors.digests import Digests, digest_tensor
from laconic.tensors.header import StoredTensor, read_header
from laconic.tensors.source import INDEX_FILE, SINGLE_FILE, Source, open_source
from laconic.tensors.vocab import TEMPLATE_FOLDER, tokenizer_files

MANIFEST_FILE = "laconic.json"
FORMAT = 2
# Not .md: the card is there to be edited and to receive results.
SIDE_ENDINGS = (".json", ".jinja", ".model", ".txt", ".py")
WEIGHT_ENDINGS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack")
FIELDS: Mapping[str, type] = {
    "format": int,
    "recipe": dict,
    "recipe_hash": str,
    "parents": dict,
    "tensors": dict,
    "files": dict,
    "plan": dict,
    "versions": dict,
}
WHY = "it is written by `laconic merge`; without it the output cannot be checked"


def write_manifest(
    folder: Path,
    *,
    recipe: Mapping[str, Any],
    recipe_hash: str,
    parents: Mapping[str, Any],
    tensors: Mapping[str, str],
    facts: Mapping[str, Any],
) -> None:
    """Write laconic.json as the last file of a complete output folder.

    parents: what `parent_records` returns; tensors: BLAKE3 of every output tensor's bytes, by
    name; facts: what the plan decided. The digests of all other files are taken here. It holds no
    time and no machine name: the same merge gives the same bytes.
    Raises LaconicError when `tensors` and the weight files do not name the same tensors.
    """
    specs = open_source(folder).specs
    if specs.keys() != tensors.keys():
        odd = sorted(specs.keys() ^ tensors.keys())
        raise LaconicError(f"{folder}: digests and weight files differ in tensors: {odd[:3]}")
    manifest = {
        "format": FORMAT,
        "recipe": recipe,
        "recipe_hash": recipe_hash,
        "parents": parents,
        "tensors": {
            name: {"dtype": spec.dtype, "shape": list(spec.shape), "blake3": tensors[name]}
            for name, spec in specs.items()
        },
        "files": {name: file_record(folder / name) for name in _side_files(folder)},
        "plan": facts,
        "versions": versions(),
    }
    try:
        write_json(folder / MANIFEST_FILE, manifest)
    except OSError as error:
        raise LaconicError(f"{folder / MANIFEST_FILE}: cannot be written: {error}") from error


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """Read and check laconic.json of an output folder.

    Raises LaconicError when it is missing, not JSON, lacks a part, or has another format.
    """
    path = Path(folder) / MANIFEST_FILE
    manifest = read_json(path, WHY)
    number = manifest.get("format")
    if isinstance(number, int) and number > FORMAT:
        raise LaconicError(f"{path}: format {number}, this laconic reads {FORMAT}: update laconic")
    if isinstance(number, int) and number < FORMAT:
        raise LaconicError(f"{path}: format {number} of an older laconic: merge again to check it")
    for key, kind in FIELDS.items():
        if not isinstance(manifest.get(key), kind):
            raise LaconicError(f"{path}: '{key}' is missing or is no {kind.__name__}; {WHY}")
    for key in ("tensors", "files"):
        bad = [n for n, e in manifest[key].items() if not isinstance(e, dict) or "blake3" not in e]
        if bad:
            raise LaconicError(f"{path}: {key}: '{bad[0]}' has no blake3; {WHY}")
    return manifest


def file_record(path: Path) -> dict[str, Any]:
    """Return the size and BLAKE3 of a file."""
    return {"bytes": path.stat().st_size, "blake3": digest_file(path)}


def parent_records(sources: Mapping[str, Source], digests: Digests | None = None) -> dict[str, Any]:
    """Return name, Hub revision and file digests of every parent, by role; each file read once.

    digests: those of tensors that were read already. A weight file's digest has the key `tensors`:
    see `laconic.tensors.digests` for what it is taken of.
    """
    digests = digests or Digests()
    known: dict[Path, dict[str, Any]] = {}
    records = {}
    for role, source in sources.items():
        files = {}
        for path in _parent_files(source):
            if path not in known:
                known[path] = _parent_record(path, digests)
            files[path.relative_to(source.folder).as_posix()] = known[path]
        records[role] = {"name": source.name, "revision": _revision(source), "files": files}
    return records


def _parent_record(path: Path, digests: Digests) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        return {"bytes": path.stat().st_size, "tensors": digests.of_file(path)}
    return file_record(path)


@dataclass(frozen=True)
class Verification:
    """What re-checking an output found."""

    folder: str
    recipe_hash: str | None
    tensors: int
    files: int
    problems: tuple[str, ...]
    unchecked: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the output is what the merge wrote."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"ok": self.ok, **asdict(self)}


def verify(out: str | Path, *, inputs: bool = False) -> Verification:
    """Re-check an output against its laconic.json: every tensor, side file and the recipe's hash.

    inputs: hash the parents' files too where they are still here; `unchecked` lists the others.
    Weights are compared by digest only: no value is looked at. Problems name file and tensor.
    Raises LaconicError when `out` is not a folder.
    """
    folder = Path(out)
    if not folder.is_dir():
        raise LaconicError(f"{folder}: no such folder; give the output of `laconic merge`")
    try:
        manifest = read_manifest(folder)
    except LaconicError as error:
        return Verification(str(out), None, 0, 0, (str(error), *_stray_weights(folder)))
    problems = [
        *_recipe_problems(folder, manifest),
        *_file_problems(folder, manifest),
        *_weight_problems(folder, manifest["tensors"]),
        *_stray_weights(folder),
    ]
    missing: list[str] = []
    if inputs:
        problems += _input_problems(manifest["parents"], missing)
    counts = len(manifest["tensors"]), len(manifest["files"])
    return Verification(str(out), manifest["recipe_hash"], *counts, tuple(problems), tuple(missing))


def _recipe_problems(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    from laconic.recipe import recipe_hash

    found = recipe_hash(manifest["recipe"])
    if found != manifest["recipe_hash"]:
        yield (
            f"{folder / MANIFEST_FILE}: the recipe was edited: it hashes to {found}, "
            f"expected {manifest['recipe_hash']}"
        )


def _file_problems(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    for name, record in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            yield f"{path}: missing"
        elif (found := digest_file(path)) != record["blake3"]:
            yield f"{path}: changed: blake3 {found[:12]}, expected {record['blake3'][:12]}"
    for name in sorted(set(_side_files(folder)) - manifest["files"].keys()):
        # Such a file changes how the model loads: a second tokenizer, an adapter's config.
        yield f"{folder / name}: not written by the merge; move it away"


def _weight_problems(folder: Path, expected: Mapping[str, Any]) -> Iterator[str]:
    stored, problems = _stored_tensors(folder)
    yield from problems
    for name in sorted(expected.keys() - stored.keys()):
        yield f"{folder}: tensor '{name}': missing from the weight files"
    for name, tensor in stored.items():
        where = f"{tensor.file}: tensor '{name}'"
        if name not in expected:
            yield f"{where}: not written by the merge"
            continue
        want = expected[name]
        if [tensor.spec.dtype, list(tensor.spec.shape)] != [want.get("dtype"), want.get("shape")]:
            yield (
                f"{where}: {tensor.spec.dtype} {list(tensor.spec.shape)}, "
                f"expected {want.get('dtype')} {want.get('shape')}"
            )
        if digest_tensor(tensor) != want["blake3"]:
            yield f"{where}: its bytes changed since the merge"


def _stored_tensors(folder: Path) -> tuple[dict[str, StoredTensor], list[str]]:
    """Read the headers of all shards, going on past a damaged one so that all get named."""
    stored: dict[str, StoredTensor] = {}
    problems = []
    try:
        weight_map = _weight_map(folder)
    except LaconicError as error:
        return {}, [str(error)]
    for file in sorted(set(weight_map.values())) or [SINGLE_FILE]:
        try:
            header = read_header(folder / file)
        except LaconicError as error:
            problems.append(str(error))
            continue
        stored |= header
        if weight_map:
            problems += _index_problems(folder, file, set(header), weight_map)
    return stored, problems


def _weight_map(folder: Path) -> dict[str, str]:
    """Return tensor -> file by the index, empty for an output of one file."""
    path = folder / INDEX_FILE
    if not path.is_file():
        return {}
    weight_map = read_json(path, "the index maps tensors to files").get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise LaconicError(f"{path}: no weight_map from tensor names to file names")
    return {str(name): Path(str(file)).name for name, file in weight_map.items()}


def _index_problems(
    folder: Path, file: str, held: set[str], weight_map: Mapping[str, str]
) -> Iterator[str]:
    listed = {name for name, shard in weight_map.items() if shard == file}
    for name in sorted(listed - held):
        yield f"{folder / file}: tensor '{name}': the index says it is here, it is not"
    for name in sorted(held - listed):
        yield f"{folder / file}: tensor '{name}': the index does not say that it is here"


def _stray_weights(folder: Path) -> Iterator[str]:
    """Name weight files that are not the output's: transformers may load them instead of it."""
    try:
        named = set(_weight_map(folder).values()) or {SINGLE_FILE}
    except LaconicError:
        return
    for path in sorted(folder.iterdir()):
        if path.suffix in WEIGHT_ENDINGS and path.name not in named:
            yield f"{path}: a weight file that the index does not name; move it away"


def _input_problems(parents: Mapping[str, Any], missing: list[str]) -> Iterator[str]:
    for role, parent in parents.items():
        for name, record in parent["files"].items():
            path = _find_input(parent, name)
            where = f"input of {role}: {parent['name']}: {name}"
            if path is None:
                missing.append(where)
            elif _parent_record(path, Digests()) != record:
                yield f"{where}: changed since the merge"


def _find_input(parent: Mapping[str, Any], name: str) -> Path | None:
    local = Path(parent["name"])
    if local.is_dir():
        return local / name if (local / name).is_file() else None
    from huggingface_hub import try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(parent["name"], name, revision=parent.get("revision"))
    except ValueError:  # a local path that is gone is no Hub id either
        return None
    return Path(cached) if isinstance(cached, str) else None


def _side_files(folder: Path) -> list[str]:
    """Name the files beside the weights that decide how the model loads."""
    paths = [*folder.iterdir(), *(folder / TEMPLATE_FOLDER).glob("*")]
    return sorted(
        path.relative_to(folder).as_posix()
        for path in paths
        if path.is_file() and path.suffix in SIDE_ENDINGS and path.name != MANIFEST_FILE
    )


def _parent_files(source: Source) -> list[Path]:
    settings = [source.folder / name for name in ("config.json", "generation_config.json")]
    small = [path for path in (*settings, source.folder / INDEX_FILE) if path.is_file()]
    return sorted({*source.files, *small, *tokenizer_files(source.folder)})


def _revision(source: Source) -> str | None:
    """Return the commit of a Hub snapshot, which is the name of its folder in the cache."""
    return source.folder.name if source.folder.parent.name == "snapshots" else None
