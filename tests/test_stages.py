"""The stage detector on curves that are known, and on a live tiny pair."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import thinkers
from laconic.errors import LaconicError
from laconic.run.sample import Message, Sample
from laconic.run.sampling import Sampling
from laconic.run.scripted import ScriptedRunner
from laconic.stages import StagePoint, fit_stages, stages

SAMPLES = [Sample(f"q{i}", (Message("user", f"add {i}"),)) for i in range(50)]


def points(curve: Any, count: int = 11, asked: int = 1000) -> list[StagePoint]:
    weights = [i / (count - 1) for i in range(count)]
    return [StagePoint(w, asked, round(asked * curve(w)), 10.0) for w in weights]


def test_the_fit_finds_a_known_curve() -> None:
    found = fit_stages(points(lambda w: 1 / (1 + math.exp(-25 * (w - 0.52)))))
    reach = math.log(19) / 25
    assert found.low == pytest.approx(0.52 - reach, abs=0.01)
    assert found.high == pytest.approx(0.52 + reach, abs=0.01)
    assert found.operating_points == (found.high, (found.high + 1) / 2)
    assert json.dumps(found.to_dict())
    assert "operating points" in list(found.lines())[-1]


def test_a_step_between_two_points_of_the_grid() -> None:
    found = fit_stages(points(lambda w: float(w > 0.45)))
    assert 0.4 < found.low <= found.high < 0.5  # type: ignore[operator]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_flat_curve_has_no_stages(share: float) -> None:
    found = fit_stages(points(lambda _: share))
    assert found.low is found.high is None
    assert found.operating_points == ()
    assert "no stages" in found.note


class Live(ScriptedRunner):
    """Closes its thinking more often the nearer its first weight is to the slow model's."""

    def __init__(self, quick: float, slow: float) -> None:
        super().__init__(self._text)
        self._ends, self.weights = (quick, slow), list[float]()

    def load(self, weights: Any) -> None:
        tensors = dict(weights)
        now = tensors["model.norm.weight"][0].item()
        self.weights.append((now - self._ends[0]) / (self._ends[1] - self._ends[0]))

    def _text(self, sample: Sample, draw: int) -> str:
        share = 1 / (1 + math.exp(-30 * (self.weights[-1] - 0.6)))
        return "a </think> b" if int(sample.id[1:]) < round(50 * share) else "a <tool_call> b"


def test_the_sweep_merges_measures_and_refines(tmp_path: Path) -> None:
    thinkers.write_pair(tmp_path)
    ends = [
        load_file(tmp_path / name / "model.safetensors")["model.norm.weight"][0].item()
        for name in ("quick", "slow")
    ]
    runner = Live(*ends)
    found = stages(
        str(tmp_path / "quick"), str(tmp_path / "slow"), SAMPLES,
        sampling=Sampling(), runner=runner, progress=False,
    )  # fmt: skip
    assert len(found.points) == 15
    assert sorted(runner.weights) == pytest.approx([p.weight for p in found.points], abs=1e-4)
    reach = math.log(19) / 30
    assert found.low == pytest.approx(0.6 - reach, abs=0.02)
    assert found.high == pytest.approx(0.6 + reach, abs=0.02)
    crossings = [p.weight for p in found.points if round(p.weight * 10, 3) % 1]
    assert all(abs(abs(w - 0.6) - reach) < 0.06 for w in crossings)
    assert found.points[0].mean_tokens == 4


def test_a_live_model(tmp_path: Path) -> None:
    thinkers.write_pair(tmp_path)
    torch.manual_seed(0)
    found = stages(
        str(tmp_path / "quick"), str(tmp_path / "slow"), SAMPLES[:3],
        step=0.5, refinements=1, sampling=Sampling(max_tokens=5), progress=False,
    )  # fmt: skip
    assert [p.weight for p in found.points][:1] == [0.0]
    assert all(p.responses == 3 for p in found.points)


def test_no_samples() -> None:
    with pytest.raises(LaconicError, match="stages: needs samples"):
        stages("a", "b", [])
