"""Checkpoints to read from: a local folder or a Hugging Face Hub id, one tensor block at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from laconic.errors import LaconicError
from laconic.records import read_json
from laconic.tensors.header import ITEM_BYTES, StoredTensor, TensorSpec, read_header

if TYPE_CHECKING:
    import torch

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
SMALL_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "README.md")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Source:
    """A checkpoint: its headers, its config, and where its files are.

    `name` is what the user wrote; `folder` holds the small files; `tensors` maps every parameter
    to the place of its bytes, or only to its spec when the weights were not fetched.
    """

    name: str
    folder: Path
    specs: Mapping[str, TensorSpec]
    stored: Mapping[str, StoredTensor] = field(default_factory=dict)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The parsed config.json."""
        return read_json(self.folder / "config.json", "every checkpoint needs its config.json")

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The weight files, sorted by name."""
        return tuple(sorted({tensor.file for tensor in self.stored.values()}))

    @property
    def tied(self) -> bool:
        """Whether the head shares the embedding's weights: the config says so, or none is stored.

        A head stored although the config ties it is left out; the doctor says so.
        """
        return HEAD not in self.specs or bool(self.config.get("tie_word_embeddings", False))


def open_source(model: str | Path, *, weights: bool = True) -> Source:
    """Open a checkpoint: a local folder, or a Hub id such as `Qwen/Qwen2.5-Math-7B`.

    With weights=False nothing but headers and small files is fetched for a Hub id.
    Raises LaconicError for a missing model, a pickle checkpoint, or a damaged index or header.
    """
    name = str(model)
    folder = Path(name)
    if folder.is_dir():
        return _open_folder(name, folder)
    if folder.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise LaconicError(
            f"model '{name}': no such folder, and not a Hugging Face Hub id (owner/name)"
        )
    return _open_hub(name, weights)


def _open_folder(name: str, folder: Path) -> Source:
    index = folder / INDEX_FILE
    if (folder / SINGLE_FILE).is_file() and not index.is_file():
        stored = read_header(folder / SINGLE_FILE)
    elif index.is_file():
        stored = _read_sharded(folder, index)
    else:
        raise _no_weights(folder)
    return Source(name, folder, {n: tensor.spec for n, tensor in stored.items()}, stored)


def _no_weights(folder: Path) -> LaconicError:
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        return LaconicError(
            f"{folder}: holds pickle weights ({pickles[0]}), which can run code when loaded. "
            "Convert them once: AutoModelForCausalLM.from_pretrained(FOLDER)"
            ".save_pretrained(NEW_FOLDER) writes safetensors"
        )
    return LaconicError(f"{folder}: no {SINGLE_FILE} and no {INDEX_FILE}: not a checkpoint")


def _read_sharded(folder: Path, index: Path) -> dict[str, StoredTensor]:
    weight_map = read_json(index, "the index maps tensors to files").get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise LaconicError(f"{index}: no weight_map from tensor names to file names")
    headers = {}
    for file in sorted(set(weight_map.values())):
        if Path(file).name != file or not (folder / file).is_file():
            tensor = next(name for name, shard in weight_map.items() if shard == file)
            raise LaconicError(
                f"{index}: tensor '{tensor}' is said to be in {file}, which is not in {folder}"
            )
        headers[file] = read_header(folder / file)
    for name, file in weight_map.items():
        if name not in headers[file]:
            raise LaconicError(f"{index}: tensor '{name}' is said to be in {file}, which lacks it")
    return {name: headers[file][name] for name, file in weight_map.items()}


def _open_hub(name: str, weights: bool) -> Source:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, NotASafetensorsRepoError

    patterns = [*SMALL_FILES, "*.safetensors"] if weights else list(SMALL_FILES)
    try:
        folder = Path(snapshot_download(name, allow_patterns=patterns))
        if weights:
            return _open_folder(name, folder)
        metadata = HfApi().get_safetensors_metadata(name)
    except NotASafetensorsRepoError:
        raise LaconicError(
            f"model '{name}': its Hub repository has no safetensors weights; convert it first"
        ) from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise LaconicError(f"model '{name}': cannot be fetched from the Hub: {error}") from error
    specs = {
        tensor: TensorSpec(tensor, info.dtype, tuple(info.shape))
        for file in metadata.files_metadata.values()
        for tensor, info in file.tensors.items()
    }
    return Source(name, folder, specs)


class Reader:
    """Reads ranges of entries of stored tensors; safe to share between threads.

    Every thread reuses its own buffers, so that resident memory doesn't grow with the model.
    device: where its bytes come to lie.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        import torch

        self.device = device or torch.device("cpu")
        self._files: dict[Path, int] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()

    def read(self, tensor: StoredTensor, start: int, into: torch.Tensor) -> None:
        """Fill `into` (bytes, uint8, contiguous) with the entries from `start` on.

        Raises LaconicError naming file and tensor when the file ends early or cannot be read.
        """
        buffer: Any = into.numpy()
        view = memoryview(buffer)
        offset = tensor.offset + start * ITEM_BYTES[tensor.spec.dtype]
        done = 0
        try:
            descriptor = self._descriptor(tensor.file)
            while done < len(view):
                count = os.preadv(descriptor, [view[done:]], offset + done)
                if count == 0:
                    raise LaconicError(
                        f"{tensor.file}: ends in the middle of tensor '{tensor.spec.name}'; "
                        "was it changed while being read?"
                    )
                done += count
        except OSError as error:
            raise LaconicError(
                f"{tensor.file}: cannot read tensor '{tensor.spec.name}': {error.strerror}"
            ) from error

    def _descriptor(self, path: Path) -> int:
        if path in self._files:
            return self._files[path]
        with self._lock:
            if path not in self._files:
                self._files[path] = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            return self._files[path]
