"""Eight real VGGSound clips and two photographs with their sounds, by the documented commands."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1200)]

STEPS = ("sampling.batch_size=2", "stage1.steps=20", "stage2.steps=20", "stage3.steps=20")


def aiaic(*arguments: str | Path, cwd: Path) -> dict:
    command = [sys.executable, "-m", "workflows.cli", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def lightness_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("L"), np.int16)


def test_clips_become_a_checkpoint_that_colours_photographs(shared, tmp_path):
    data = shared / "data"
    built = aiaic(
        "prepare", "--dataset", "vggsound", "--annotations", data / "vggsound/vggsound.csv",
        "--clips", data / "vggsound/clips", "--out", tmp_path / "shards", "--size-px", "256",
        cwd=tmp_path,
    )  # fmt: skip
    assert (built["written"], built["rejected"]) == (8, {})
    aiaic("verify", "--shards", tmp_path / "shards", cwd=tmp_path)
    trained = aiaic(
        "train", "--stage", "all", "--recipe", "resnet34_unet", "--split", "test",
        "--shards", tmp_path / "shards", "--out", tmp_path / "run", "--set", *STEPS,
        cwd=tmp_path,
    )  # fmt: skip
    assert [trained["stages"][stage]["steps"] for stage in "123"] == [20, 20, 20]

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
