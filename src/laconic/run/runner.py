"""The contract of everything that turns samples into completions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from laconic.run.completion import Completion
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling

if TYPE_CHECKING:
    import torch

Weights = str | Path | Iterable[tuple[str, "torch.Tensor"]]
Key = tuple[str, int]
"""A sample's id and a draw."""
SHOWN_IDS = 200
"""How many ids of the first prompt a run file keeps."""


@dataclass(frozen=True)
class Identity:
    """What a run file records about the model behind a runner.

    weights: digest of the weights' bytes. tokenizer: digest of its ordinary vocabulary: lengths
    counted by tokenizers with different digests cannot be compared. context_window: in tokens,
    prompt and completion together. first_prompt: token ids of the first sample's prompt (at most
    200), which show the chat template at work.
    """

    model: str
    weights: str
    tokenizer: str
    dtype: str
    device: str
    context_window: int | None
    first_prompt: tuple[int, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """This identity as a JSON object."""
        return asdict(self) | {"first_prompt": list(self.first_prompt)}


class Runner(Protocol):
    """Samples in, completions out, in the order in which they finish."""

    def generate(
        self, samples: Sequence[Sample], sampling: Sampling, done: Collection[Key] = ()
    ) -> Iterator[Completion]:
        """Yield every draw of every sample once, but for those in `done`."""
        ...

    def load(self, weights: Weights) -> None:
        """Replace the weights by those of a folder or of (name, tensor) pairs."""
        ...

    def identity(self, first: Sample) -> Identity:
        """Describe the model; `first` is the first sample of the run."""
        ...


@contextmanager
def closing(runner: Runner) -> Iterator[Runner]:
    """A runner that is closed at the end, if it has anything to close."""
    try:
        yield runner
    finally:
        getattr(runner, "close", lambda: None)()


def pending(
    samples: Sequence[Sample], sampling: Sampling, done: Collection[Key]
) -> list[tuple[Sample, int]]:
    """The samples and draws still to be generated, in order."""
    return [
        (sample, draw)
        for sample in samples
        for draw in range(sampling.n)
        if (sample.id, draw) not in done
    ]
