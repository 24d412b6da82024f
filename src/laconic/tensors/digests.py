"""Digests of a parent's weights, taken of the very bytes that a merge reads, while it reads them.

The digest of a weight file is the BLAKE3 of its header's bytes followed by the BLAKE3 (32 bytes) of
each of its tensors in the order of the bytes: it covers the whole file, and its parts may be taken
in any order by any thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from blake3 import blake3

from laconic.errors import LaconicError
from laconic.provenance import digest_range
from laconic.tensors.header import StoredTensor, read_header


class Digests:
    """BLAKE3 of stored tensors, by where their bytes stand; threads may add to them at once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, int, int], str] = {}

    def __contains__(self, tensor: StoredTensor) -> bool:
        return _place(tensor) in self._known

    def put(self, tensor: StoredTensor, digest: str) -> None:
        """Note the digest, in hexadecimal, of all bytes of a tensor."""
        self._known[_place(tensor)] = digest

    def of(self, tensor: StoredTensor) -> str:
        """Return a tensor's digest; its bytes are read now if no one has noted it."""
        place = _place(tensor)
        if place not in self._known:
            self._known[place] = digest_tensor(tensor)
        return self._known[place]

    def of_file(self, path: Path) -> str:
        """Return the digest of a weight file. Raises LaconicError when it cannot be read."""
        tensors = read_header(path).values()
        start = min((tensor.offset for tensor in tensors), default=path.stat().st_size)
        with path.open("rb") as file:
            whole = blake3(file.read(start))
        for tensor in tensors:
            whole.update(bytes.fromhex(self.of(tensor)))
        return whole.hexdigest()

    def missing(self, files: Iterable[Path]) -> list[StoredTensor]:
        """List the tensors of weight files whose digest no one has noted."""
        found = (tensor for file in files for tensor in read_header(file).values())
        return [tensor for tensor in found if tensor not in self]


def digest_tensor(tensor: StoredTensor) -> str:
    """Return the BLAKE3, in hexadecimal, of a tensor's bytes, read now.

    Raises LaconicError naming file and tensor when they cannot be read.
    """
    try:
        return digest_range(tensor.file, tensor.offset, tensor.spec.nbytes)
    except OSError as error:
        raise LaconicError(
            f"{tensor.file}: cannot read tensor '{tensor.spec.name}': {error.strerror}"
        ) from error


def _place(tensor: StoredTensor) -> tuple[Path, int, int]:
    # an empty tensor stands where the next one does
    return tensor.file, tensor.offset, tensor.spec.nbytes
