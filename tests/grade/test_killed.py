from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_run_killed_ten_times_has_the_records_of_an_unbroken_one(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.resume", "--folder", str(tmp_path), "--times", "10"]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "10 kills: the records of the unbroken run"
    assert done.stdout.count("kill ") == 10
