"""The benchmark of GPUs runs anywhere, in small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_all_parts_give_figures(tmp_path: Path) -> None:
    out = tmp_path / "gpu_speed.json"
    script = ROOT / "benchmarks" / "gpu_speed.py"
    command = [sys.executable, str(script), "--device", "cpu", "--quick", "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, timeout=280, env=environment, capture_output=True)
    rows = json.loads(out.read_text())["rows"]
    assert {row["part"] for row in rows} == {"stages", "without", "data", "sweep", "kernels"}
    assert not any("left_out" in row for row in rows)
    assert all(row["img_per_s"] > 0 for row in rows if "img_per_s" in row)
