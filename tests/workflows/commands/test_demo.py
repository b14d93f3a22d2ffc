"""The demo in small: the whole chain by one command, and again."""

import json
from pathlib import Path

import pytest

from workflows import cli

CONDITIONS = ("matched", "missing", "silent", "mismatched", "swapped", "image")
PARTS = ("synthesize", "prepare", "stage1", "stage2", "stage3", "evaluate")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.timeout(600)
def test_the_demo_in_small(
    tiny: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = ["demo", "--out", str(tmp_path / "demo"), "--clips", "96", "--json", "--set", *tiny]
    assert cli.main(demo) == 0
    first = json.loads(capsys.readouterr().out.splitlines()[-1])
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    for condition in CONDITIONS:
        assert {"psnr", "mse_ab"} <= report["conditions"][condition].keys()
    for bound in ("without_sound", "with_sound"):
        assert {"psnr", "mse_ab"} <= report["bounds"][bound].keys()
    for figure in ("guidance_gain_db", "oracle_share", "swapped_share", "relevance_auc"):
        assert isinstance(report[figure], float)
    assert set(report["seconds"]) == set(PARTS)
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
    assert len(list((tmp_path / "demo" / "pictures").glob("*.png"))) == 4

    assert cli.main(demo) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["conditions"] == first["conditions"]
    unchanged = [part for part in PARTS if part != "evaluate"]
    assert [again["seconds"][part] for part in unchanged] == [
        first["seconds"][part] for part in unchanged
    ]
