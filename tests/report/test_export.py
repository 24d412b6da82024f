from __future__ import annotations

from pathlib import Path

import pytest

from grade.scripts import run
from laconic.errors import LaconicError
from laconic.records import read_records
from laconic.report.export import export


def test_lm_eval_samples(tmp_path: Path) -> None:
    run(tmp_path / "run")
    (path,) = export(tmp_path / "run", tmp_path / "out")
    assert path.name == "samples_sums.jsonl"
    lines = read_records(path)
    assert [line["doc_id"] for line in lines] == list(range(8))
    assert (lines[1]["target"], lines[1]["resps"]) == ("2", [["Wait. \\boxed{2}"]])
    assert (lines[1]["filtered_resps"], lines[1]["exact_match"]) == (["2"], 1.0)
    assert lines[5]["exact_match"] == 0.0


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LaconicError, match="unknown export format 'lm_eval'; did you mean"):
        export(tmp_path, tmp_path, "lm_eval")
