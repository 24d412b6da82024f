"""What a safetensors file says it holds, checked before a byte of weight is read.

Format: 8 bytes little-endian header length, a JSON header, then one buffer of tensor bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from laconic.errors import LaconicError

ITEM_BYTES: Mapping[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOAT_DTYPES = ("F64", "F32", "F16", "BF16")
MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype (as safetensors spells it, such as `BF16`) and shape of a tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of entries; 1 for a scalar, 0 for an empty tensor."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return self.numel * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where the bytes of a tensor stand: `spec.nbytes` bytes at `offset` of `file`."""

    spec: TensorSpec
    file: Path
    offset: int


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Read and check the header of one safetensors file; the order is that of the bytes.

    Raises LaconicError, naming file and tensor, when the header is not JSON, lies about dtypes,
    shapes or offsets, or when the file is shorter or longer than the header says.
    """
    raw, data_start = _read_json(path)
    raw.pop("__metadata__", None)
    stored = [_stored(path, name, entry, data_start) for name, entry in raw.items()]
    stored.sort(key=lambda tensor: (tensor.offset, tensor.spec.nbytes))
    _check_layout(path, stored, data_start)
    return {tensor.spec.name: tensor for tensor in stored}


def build_header(specs: Iterable[TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """Build the length prefix and JSON header of a file that holds `specs` in the given order.

    The header is padded with spaces so that the tensor bytes start at a multiple of 8.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for spec in specs:
        begin, end = end, end + spec.nbytes
        header[spec.name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _read_json(path: Path) -> tuple[dict[str, Any], int]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            if len(prefix) < 8:
                raise LaconicError(f"{path}: not a safetensors file: only {size} bytes long")
            (length,) = struct.unpack("<Q", prefix)
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise LaconicError(
                    f"{path}: its header claims {length} bytes but the file has {size}: "
                    "truncated, or not a safetensors file"
                )
            text = file.read(length)
    except OSError as error:
        raise LaconicError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LaconicError(f"{path}: the safetensors header is not valid JSON: {error}") from error
    if not isinstance(raw, dict):
        raise LaconicError(f"{path}: the safetensors header is not a JSON object")
    return raw, 8 + length


def _stored(path: Path, name: str, entry: Any, data_start: int) -> StoredTensor:
    where = f"{path}: tensor '{name}'"
    if any("\ud800" <= letter <= "\udfff" for letter in name):  # cannot be written anywhere
        raise LaconicError(f"{path}: tensor name {name!a} is not Unicode text")
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise LaconicError(f"{where}: its header entry lacks dtype, shape or data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise LaconicError(f"{where}: unknown dtype {dtype!r}")
    if not _naturals(shape):
        raise LaconicError(f"{where}: shape {shape!r} is not a list of sizes")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise LaconicError(f"{where}: data_offsets {offsets!r} are not [begin, end]")
    spec = TensorSpec(name, dtype, tuple(shape))
    if spec.nbytes != offsets[1] - offsets[0]:
        raise LaconicError(
            f"{where}: {dtype} {shape} needs {spec.nbytes} bytes but its offsets span "
            f"{offsets[1] - offsets[0]}"
        )
    return StoredTensor(spec, path, data_start + offsets[0])


def _naturals(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _check_layout(path: Path, stored: list[StoredTensor], data_start: int) -> None:
    end = data_start
    for tensor in stored:
        if tensor.offset != end:
            raise LaconicError(
                f"{path}: tensor '{tensor.spec.name}' starts at byte {tensor.offset}, "
                f"expected {end}: overlap or gap, the file is corrupted"
            )
        end += tensor.spec.nbytes
    size = path.stat().st_size
    if size != end:
        last = stored[-1].spec.name if stored else "none"
        raise LaconicError(
            f"{path}: {size} bytes long, its header needs {end} (last tensor '{last}'): "
            + ("truncated; copy or download it again" if size < end else "trailing bytes")
        )
