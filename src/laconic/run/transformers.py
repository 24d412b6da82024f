"""The runner over Hugging Face transformers, on CPU or one CUDA device."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from laconic.errors import LaconicError
from laconic.models import choose_device, choose_dtype, load_model, threads_for
from laconic.run.completion import Completion
from laconic.run.decoding import Ends, Row, decode, mean_log_probability
from laconic.run.picking import Noise
from laconic.run.runner import SHOWN_IDS, Identity, Key, Weights, pending
from laconic.run.sample import Sample
from laconic.run.sampling import Sampling
from laconic.run.stops import Stops
from laconic.run.tokenizer import Tokenizer, ends_of, room
from laconic.run.weights import (
    check_specs,
    digest_files,
    digest_live,
    replace_weights,
    stored,
)
from laconic.tensors.source import Source, open_source

CPU_BATCH, CUDA_BATCH = 128, 32
DECIDES_NUMBERS = (
    "model_type",
    "hidden_act",
    "rms_norm_eps",
    "rope_parameters",
    "sliding_window",
    "tie_word_embeddings",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)
"""Config keys that change what the same weights compute."""


class TransformersRunner:
    """A live transformers model.

    model: local folder or Hub id. device: `cpu`, `cuda`, `cuda:1` ...; default: CUDA if there is
    one. dtype: `float32`, `bfloat16` or `float16`; default: the checkpoint's on CUDA, float32 on
    CPU. batch_size: most responses in the model at a time (default 128 on CPU, 32 on CUDA); the
    completions do not depend on it, but for rounding. Raises LaconicError for a model that cannot
    be read, has no tokenizer, or whose files lack parameters.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | None = None,
    ) -> None:
        self._device = choose_device(device)
        self._batch_size = _batch_size(batch_size, self._device)
        source = open_source(model)
        self._name = str(model)
        self._tokenizer = Tokenizer(source.folder, source.name)
        dtype = choose_dtype(dtype, self._device, on_cuda="auto")
        self._model = load_model(source, self._device, dtype)
        self._files: Sequence[Path] | None = source.files
        self._window = _window(self._model.config)
        self._digest: str | None = None
        self._whole = True

    def generate(
        self, samples: Sequence[Sample], sampling: Sampling, done: Collection[Key] = ()
    ) -> Iterator[Completion]:
        """Yield every draw of every sample once, but for those in `done`, as they finish.

        Every prompt is rendered and checked first. Raises LaconicError for a model without a chat
        template, a prompt that fills the context window, or too little memory.
        """
        if not self._whole:
            raise LaconicError("the last weights were loaded in part only; load a checkpoint again")
        asked = pending(samples, sampling, done)
        different = {s.id: s for s, _ in asked}
        prompts = {id: self._tokenizer.prompt(sample) for id, sample in different.items()}
        limits = {
            id: room(id, prompt, self._window, self._name, sampling)
            for id, prompt in prompts.items()
        }
        rows = [
            Row(
                (sample.id, draw),
                prompts[sample.id].ids,
                limits[sample.id],
                Noise(sampling.seed, sample.id, draw),
            )
            for sample, draw in asked
        ]
        stops = Stops(sampling.stop, self._tokenizer)
        ends = Ends(self._ends(), stops.reached)
        with _memory_error(self._batch_size), threads_for(self._model):
            for row in decode(self._model, rows, sampling, ends, self._batch_size):
                ended = row.tokens[-1] in ends.ids
                yield stops.completion(row.key, prompts[row.key[0]], row.tokens, ended=ended)

    def load(self, weights: Weights) -> None:
        """Replace the model's weights in place: by a folder's (or Hub id's), or by pairs.

        The tokenizer and its chat template stay. Raises LaconicError when names, shapes, or the
        parts of the config that change the arithmetic do not fit the live model.
        """
        if not isinstance(weights, str | Path):
            self._replace(weights, files=None)
            return
        source = open_source(weights)
        self._check(source)
        self._replace(stored(source.files), source.files)
        self._name, self._window = str(weights), _window(_config(source))

    def score(self, sample: Sample, response: str) -> float:
        """The mean log-probability, in nats per token, of a response with its end token.

        The response is split by this model's tokenizer. What does not fit in the context window is
        left out; NaN when nothing is left.
        """
        prompt = self._tokenizer.prompt(sample).ids
        tail = () if self._tokenizer.end is None else (self._tokenizer.end,)
        ids = [*prompt, *self._tokenizer.ids(response, special=False), *tail][: self._window]
        with threads_for(self._model):
            return mean_log_probability(self._model, ids, len(prompt))

    def identity(self, first: Sample) -> Identity:
        """Describe the model; reads the weights' bytes once to name them."""
        if self._digest is None:
            files = self._files
            self._digest = digest_live(self._model) if files is None else digest_files(files)
        return Identity(
            model=self._name,
            weights=self._digest,
            tokenizer=self._tokenizer.digest,
            dtype=str(self._model.dtype).removeprefix("torch."),
            device=str(self._device),
            context_window=self._window,
            first_prompt=self._tokenizer.prompt(first).ids[:SHOWN_IDS],
            versions={
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
        )

    def _replace(self, pairs: Iterable[tuple[str, Tensor]], files: Sequence[Path] | None) -> None:
        self._whole = False  # until the last pair has come
        replace_weights(self._model, pairs)
        self._whole, self._files, self._digest = True, files, None

    def _ends(self) -> frozenset[int]:
        """The ids that end a response: the tokenizer's and all of the generation settings'."""
        configs = (self._model.config, self._model.generation_config)
        return ends_of(self._tokenizer.end, *(getattr(c, "eos_token_id", None) for c in configs))

    def _check(self, source: Source) -> None:
        check_specs(self._model, source.specs)
        theirs = _config(source)
        for key in DECIDES_NUMBERS:
            mine, other = (getattr(config, key, None) for config in (self._model.config, theirs))
            if mine != other:
                raise LaconicError(
                    f"{source.folder}: config '{key}' is {other!r}, but {mine!r} in the live "
                    "model; open that checkpoint as a model of its own"
                )


def _config(source: Source) -> Any:
    return transformers.AutoConfig.from_pretrained(source.folder)


def _batch_size(size: int | None, device: torch.device) -> int:
    if size is None:
        return CUDA_BATCH if device.type == "cuda" else CPU_BATCH
    if size < 1:
        raise LaconicError(f"batch size is {size}; expected 1 or more")
    return size


def _window(config: Any) -> int | None:
    window = getattr(config.get_text_config(), "max_position_embeddings", None)
    return None if window is None else int(window)


@contextlib.contextmanager
def _memory_error(batch_size: int) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise LaconicError(
            f"the device ran out of memory with a batch size of {batch_size}; finished "
            "completions are kept: run again with a smaller batch size, or a lower token limit"
        ) from error
