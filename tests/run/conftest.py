from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from laconic.run.transformers import TransformersRunner
from run.tiny import write_checkpoint


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models are slower with two threads on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture with other weights."""
    return write_checkpoint(tmp_path_factory.mktemp("models") / "other", seed=1)


@pytest.fixture
def runner(checkpoint: Path) -> TransformersRunner:
    return TransformersRunner(checkpoint, device="cpu", batch_size=6)
