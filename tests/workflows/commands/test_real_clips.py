"""Eight real VGGSound clips and two photographs with their sounds, by the documented commands."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1200)]

STEPS = ("sampling.batch_size=2", "stage1.steps=4", "stage2.steps=4", "stage3.steps=4")


def aiaic(*arguments: str | Path, cwd: Path) -> dict:
    command = [sys.executable, "-m", "workflows.cli", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def lightness_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"), np.int16)


def test_clips_become_a_report_and_a_checkpoint_that_colours_photographs(shared, tmp_path):
    data = shared / "data"
    made = aiaic(
        "reproduce", "--dataset", "vggsound", "--annotations", data / "vggsound/vggsound.csv",
        "--clips", data / "vggsound/clips", "--out", tmp_path, "--train-split", "test",
        "--set", *STEPS, cwd=tmp_path,
    )  # fmt: skip
    assert (made["prepare"]["written"], made["prepare"]["rejected"]) == (8, {})
    aiaic("verify", "--shards", tmp_path / "shards", cwd=tmp_path)
    assert [made["train"]["stages"][stage]["steps"] for stage in "123"] == [4, 4, 4]
    assert made["evaluate"]["conditions"]["matched"]["n"] == 8
    assert (tmp_path / "run/evaluation/report.html").is_file()

    for name in ("car", "dog"):
        photograph = data / f"still/{name}_image.jpg"
        aiaic(
            "colorize", photograph, "--audio", data / f"still/{name}_audio.wav",
            "--checkpoint", tmp_path / "run", "--out", tmp_path / f"{name}.png", cwd=tmp_path,
        )  # fmt: skip
        before, after = lightness_of(photograph), lightness_of(tmp_path / f"{name}.png")
        assert before.shape == after.shape
        # Luma and lightness differ a little where the chroma differs.
        assert np.abs(before - after).mean() < 6
    clip = sorted((data / "vggsound/clips").glob("*.mp4"))[0]
    aiaic(
        "colorize", clip, "--checkpoint", tmp_path / "run", "--out", tmp_path / "clip.png",
        cwd=tmp_path,
    )  # fmt: skip
    assert np.asarray(Image.open(tmp_path / "clip.png")).std() > 0


def test_the_same_clips_as_ave_would_have_them(shared, tmp_path):
    """Named by their video alone, with events in AVE's own format and its three split files."""
    rows = (shared / "data/vggsound/vggsound.csv").read_text().splitlines()
    (tmp_path / "clips").mkdir()
    lines = []
    for row in rows:
        video, start, label, _ = row.split(",")
        clip = shared / f"data/vggsound/clips/{video}_{int(start):06d}.mp4"
        (tmp_path / "clips" / f"{video}.mp4").symlink_to(clip)
        lines.append(f"{label}&{video}&good&2&8")
    names = ("trainSet.txt", "valSet.txt", "testSet.txt")
    for name, part in zip(names, (lines[:5], lines[5:6], lines[6:]), strict=True):
        (tmp_path / name).write_text("\n".join(part) + "\n")
    (tmp_path / "Annotations.txt").write_text("\n".join(lines) + "\n")
    made = aiaic(
        "reproduce", "--dataset", "ave", "--annotations", tmp_path / "Annotations.txt",
        "--splits", *(tmp_path / name for name in names), "--clips", tmp_path / "clips",
        "--out", tmp_path / "ave", "--workers", "0", "--set", "sampling.batch_size=2",
        "stage1.steps=2", "stage2.steps=2", "stage3.steps=2", "view.size_px=64",
        cwd=tmp_path,
    )  # fmt: skip
    assert made["prepare"]["written"] == 8
    assert made["evaluate"]["protocol"]["n"] == 2
    assert made["evaluate"]["labels"].keys() == {row.split(",")[2] for row in rows[6:]}
