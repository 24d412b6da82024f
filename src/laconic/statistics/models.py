"""Models and tokenizers to run calibration text through."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from laconic.errors import LaconicError
from laconic.tensors.source import Source

SMALL_MODEL = 10_000_000
"""In parameters: below it one thread is quicker than several that wait for each other."""


def load_model(source: Source, device: torch.device, dtype: str) -> Any:
    """Load a causal language model for reading: no dropout, no gradients.

    Raises LaconicError when it cannot be loaded or lacks parameters.
    """
    import transformers

    try:
        with _quiet():
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                source.folder, dtype=dtype, output_loading_info=True
            )
    except Exception as error:  # whatever a damaged config or weight file makes it raise
        raise LaconicError(f"model '{source.name}': cannot be loaded: {error}") from error
    if missing := sorted(info["missing_keys"]):
        raise LaconicError(
            f"model '{source.name}': its files lack {len(missing)} parameters, first '{missing[0]}'"
        )
    return model.to(device).eval().requires_grad_(False)


def load_tokenizer(source: Source) -> Any:
    """Load a model's tokenizer; LaconicError when it has none."""
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.folder)
        words = len(tokenizer.get_vocab())
    except Exception as error:  # the tokenizers library raises plain Exception for a bad file
        raise LaconicError(
            f"model '{source.name}': its tokenizer cannot be loaded: {error}"
        ) from error
    if not words:
        raise LaconicError(f"model '{source.name}': no tokenizer in {source.folder}")
    return tokenizer


def choose_device(name: str | None) -> torch.device:
    """Return the device named, or CUDA if there is one; LaconicError for an unknown one."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise LaconicError(f"unknown device '{name}'; expected cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise LaconicError(f"device '{name}': torch sees {torch.cuda.device_count()} CUDA devices")
    return device


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own progress bar."""
    import transformers

    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


@contextmanager
def threads_for(model: Any) -> Iterator[None]:
    """Run a small model on one thread."""
    before = torch.get_num_threads()
    if model.device.type == "cpu" and model.num_parameters() < SMALL_MODEL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
