"""Live models: a causal language model and its tokenizer, opened from a checkpoint.

Light to import: transformers is imported inside the functions, so that a merge need not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from laconic.errors import LaconicError
from laconic.tensors.source import Source

DTYPES = ("float32", "bfloat16", "float16")
SMALL_MODEL = 10_000_000
"""In parameters."""


def load_model(source: Source, device: torch.device, dtype: str) -> Any:
    """Load a causal language model for reading: no dropout, no gradients.

    dtype: a torch dtype's name, or `auto` for the checkpoint's. Raises LaconicError when it cannot
    be loaded or lacks parameters.
    """
    import transformers

    try:
        with _quiet():
            model, info = transformers.AutoModelForCausalLM.from_pretrained(
                source.folder, dtype=dtype, output_loading_info=True
            )
    except Exception as error:  # whatever a damaged config or weight file makes it raise
        raise LaconicError(
            f"model '{source.name}': cannot be loaded from {source.folder}: {first_line(error)}"
        ) from error
    # transformers fills a missing parameter with random numbers and goes on.
    if missing := sorted(info["missing_keys"]):
        raise LaconicError(
            f"model '{source.name}': its files lack {len(missing)} parameters, first "
            f"'{missing[0]}'; the checkpoint is incomplete, or its config does not fit it"
        )
    return model.to(device).eval().requires_grad_(False)


def load_tokenizer(source: Source) -> Any:
    """Load a model's tokenizer. Raises LaconicError when it has none."""
    return tokenizer_in(source.folder, source.name)


def tokenizer_in(folder: str | Path, name: str) -> Any:
    """Load the tokenizer in a folder (or of a Hub id); `name` is the model's name in messages.

    Raises LaconicError when it cannot be loaded or holds no vocabulary.
    """
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        words = tokenizer.get_vocab().keys() - tokenizer.get_added_vocab().keys()
    except Exception as error:  # the tokenizers library raises plain Exception for a bad file
        raise LaconicError(
            f"model '{name}': its tokenizer cannot be loaded from {folder}: {first_line(error)}"
        ) from error
    # transformers makes an empty tokenizer of the architecture's kind when files are missing.
    if not words:
        raise LaconicError(
            f"model '{name}': no tokenizer in {folder}; "
            "copy tokenizer.json and tokenizer_config.json from its parent"
        )
    return tokenizer


def render_chat(tokenizer: Any, turns: Sequence[tuple[str, str]]) -> str:
    """The prompt of a chat by the tokenizer's template, up to where the response begins.

    turns: role and content. The template writes every special token itself: the text is to be
    encoded without adding any.
    """
    text: str = tokenizer.apply_chat_template(
        [{"role": role, "content": content} for role, content in turns],
        tokenize=False,
        add_generation_prompt=True,
    )
    return text


def question_prompt(tokenizer: Any, question: str) -> str:
    """The prompt of one question: by the chat template, or a plain line where there is none."""
    if tokenizer.chat_template is None:
        return f"{question}\n"
    return render_chat(tokenizer, [("user", question)])


def choose_device(name: str | None) -> torch.device:
    """The device named, or CUDA if there is one. Raises LaconicError for an unknown one."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise LaconicError(f"unknown device '{name}'; expected cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise LaconicError(
            f"device '{name}': this machine has {torch.cuda.device_count()} CUDA devices that "
            "torch can use; choose another, or cpu"
        )
    return device


def choose_dtype(name: str | None, device: torch.device, *, on_cuda: str = "bfloat16") -> str:
    """The dtype named, or else `on_cuda` on CUDA and float32 on CPU; LaconicError if unknown."""
    if name is None:
        return on_cuda if device.type == "cuda" else "float32"
    if name not in DTYPES:
        raise LaconicError(f"unknown dtype '{name}' (known: {', '.join(DTYPES)})")
    return name


@contextmanager
def threads_for(model: Any) -> Iterator[None]:
    """One thread for a small model on CPU.

    Its steps are too short to share: on two busy cores a 0.6M-parameter model took 20 times as
    long with two threads as with one, waiting for each other.
    """
    before = torch.get_num_threads()
    if model.device.type == "cpu" and model.num_parameters() < SMALL_MODEL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


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
