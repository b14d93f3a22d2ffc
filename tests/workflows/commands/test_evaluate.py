"""``aiaic evaluate`` end to end on tiny shards: metrics, predictions, report."""

import dataclasses
import hashlib
import json
import re
import shutil
from html import unescape

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from mlflow import MlflowClient
from PIL import Image
from safetensors.torch import save_file

from aiaic.color import join
from aiaic.evaluation import metrics
from aiaic.evaluation.perceptual import Lpips
from data_prep import storage
from workflows.commands import evaluate
from workflows.evaluation import ground_truth, worker
from workflows.media import images
from workflows.options import Evaluate
from workflows.tracking import mlflow_runs

CLASSES = ("blue_sea", "golden_field", "owl", "bat")


@pytest.fixture(scope="session")
def world(clips, tmp_path_factory):
    """Ground truth for the clips of these shards: two pairs of siblings."""
    folder = tmp_path_factory.mktemp("truth")
    names = sorted(path.stem for path in clips.glob("*.mp4"))
    classes = [CLASSES[number % 4] for number in range(len(names))]
    table = {
        "key": names,
        "class": classes,
        "appearance": ["rows" if name in CLASSES[:2] else "night" for name in classes],
        "fits": [number != 35 for number in range(len(names))],
        "split": ["train" if number < 32 else "test" for number in range(len(names))],
    }
    pq.write_table(pa.table(table), folder / "truth.parquet")
    (folder / "renderings").mkdir()
    for number, key in list(enumerate(names))[32:]:
        own = np.random.default_rng(number).integers(40, 216, 3)  # the colour of the clip's frames
        for place, name in enumerate(CLASSES):
            color = own if name == classes[number] else np.roll((60, 120, 180), place)
            image = Image.fromarray(np.tile(color.astype(np.uint8), (80, 120, 1)))
            image.save(folder / "renderings" / f"{key}.{name}.png")
    return folder


def options(shards, run, **settings):
    return Evaluate(shards=shards, checkpoint=str(run), tracking_uri="none", **settings)


@pytest.fixture(scope="session")
def evaluated(shards, untrained_run, world, tmp_path_factory):
    """An evaluation with ground truth and predictions, and the folder that it wrote."""
    folder = tmp_path_factory.mktemp("evaluated")
    outcome = evaluate.run(
        options(
            shards, untrained_run, truth=str(world), out=str(folder),
            predictions=str(folder / "predictions"),
        ),
        seconds={"synthesize": 3.0, "stage1": 7.0},
    )  # fmt: skip
    return outcome, folder


def test_the_json_has_the_documented_fields(evaluated, shards, untrained_run):
    outcome, folder = evaluated
    result = json.loads((folder / "report.json").read_text())
    assert {name: value for name, value in outcome.values.items() if name != "written"} == result
    samples = outcome.values["written"]["samples.png"]
    rows, columns, _ = images.decode(storage.read_bytes(samples), samples).shape
    size = result["protocol"]["size"]
    assert (rows % size, columns) == (0, 5 * size)
    assert {"matched", "missing", "silent", "mismatched", "swapped", "image"} <= set(
        result["conditions"]
    )
    for row in result["conditions"].values():
        assert {"psnr", "mse_ab", "ssim", "colorfulness", "colorfulness_abs", "n"} <= set(row)
    assert set(result["bounds"]) == {"without_sound", "with_sound"}
    for figure in ("guidance_gain_db", "harm_db", "oracle_share", "relevance_auc"):
        assert isinstance(result[figure], float)
    assert 0 <= result["probe_accuracy"] <= 1
    assert result["conditions"]["missing"]["n"] == 4
    assert result["conditions"]["matched"]["n"] == 3
    assert result["seconds"]["synthesize"] == 3.0
    assert result["seconds"]["evaluate"] > 0
    assert result["protocol"]["weights"]["place"].startswith(f"{untrained_run}/stage3/")
    assert result["protocol"]["same_shards_as_training"]


def test_predictions_repeat_the_scores(evaluated):
    outcome, folder = evaluated
    for condition, row in outcome.values["conditions"].items():
        if condition == "unseen":
            continue
        files = sorted((folder / "predictions" / condition).glob("*.npz"))
        assert len(files) == row["n"]
        values = []
        for file in files:
            with np.load(file) as arrays:
                assert {name: arrays[name].shape for name in arrays.files} == {
                    "L": (32, 32), "ab_predicted": (2, 32, 32), "ab_true": (2, 32, 32),
                }  # fmt: skip
                assert {arrays[name].dtype for name in arrays.files} == {np.dtype("float32")}
                L = torch.from_numpy(arrays["L"])[None, None]
                pair = [
                    join(L, torch.from_numpy(arrays[name])[None])
                    for name in ("ab_predicted", "ab_true")
                ]
            values.append(metrics.psnr(*pair).item())
        assert np.mean(values) == pytest.approx(row["psnr"], abs=0.1)


def test_the_table_has_conditions_bounds_and_what_was_not_measured(evaluated):
    text = evaluated[0].text
    for part in (
        "matched",
        "bound without sound",
        "oracle share",
        "not measured: lpips",
        "report.html",
    ):
        assert part in text


def test_the_report_is_one_file_that_loads_nothing(evaluated):
    html = unescape((evaluated[1] / "report.html").read_text())
    assert html.count("data:audio/wav;base64,") >= 5
    assert html.count("data:image/png;base64,") >= 13
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", html)
    assert html.count("<svg") >= 3 + 2  # three charts, and buttons
    assert "Largest gain" in html
    assert "Results by label" not in html  # there is but one
    for part in ("golden field", "blue sea", "sibling's sound", "Training", "synthesize"):
        assert part in html


def test_reasons_are_given_without_ground_truth_or_stage_1(shards, untrained_run, tmp_path):
    alone = tmp_path / "copy"
    stage3 = next((untrained_run / "stage3").glob("step-*"))
    alone.mkdir()
    for file in stage3.iterdir():
        (alone / file.name).write_bytes(file.read_bytes())
    result = evaluate.run(options(shards, alone)).values
    assert result["written"]["report.json"] == str(tmp_path / "evaluation" / "report.json")
    assert "stage-1" in result["absent"]["image"]
    assert "truth" in result["absent"]["oracle_share"]
    assert "no two clips" in result["absent"]["mismatched"]  # one label for all of these clips
    html = (tmp_path / "evaluation" / "report.html").read_text()
    assert "mismatched sound" in html


def test_the_protocol_is_applied_and_reported(shards, untrained_run, world, tmp_path):
    kept = options(
        shards, untrained_run, truth=str(world), out=str(tmp_path), protocol="resize", size_px=64,
        predictions=str(tmp_path / "predictions"),
    )  # fmt: skip
    outcome = evaluate.run(kept)
    named = outcome.values["protocol"]
    assert (named["name"], named["size"], named["n"]) == ("resize", 64, 4)
    assert "both sides resized" in named["crop"]
    for text in (outcome.text, (tmp_path / "report.html").read_text()):
        assert "64 px (both sides resized to the square)" in text
    file = next((tmp_path / "predictions" / "swapped").glob("*.npz"))
    with np.load(file) as arrays:
        assert arrays["ab_true"].shape == (2, 64, 64)
    # Renderings of a class in the very colours of the clip are the bound, whatever the view.
    assert outcome.values["bounds"]["with_sound"]["psnr"] > 30


def test_weights_of_metrics_are_reported_with_their_checksum(
    shards, untrained_run, tmp_path, monkeypatch
):
    file = tmp_path / "alexnet.safetensors"
    save_file({"features.0.weight": torch.zeros(1)}, file)
    wanted = options(shards, untrained_run, lpips_weights=str(file), out=str(tmp_path))
    with pytest.raises(ValueError, match="does not hold torchvision's AlexNet weights"):
        evaluate.run(wanted)
    with pytest.raises(ValueError, match="is not a file of weights"):  # nothing is downloaded
        evaluate.run(dataclasses.replace(wanted, lpips_weights="AlexNet_Weights.IMAGENET1K_V1"))
    monkeypatch.setattr(worker, "Lpips", Constant)
    result = evaluate.run(wanted).values
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert result["protocol"]["metric_weights"] == {"lpips": {"place": str(file), "sha256": sha256}}
    assert result["conditions"]["matched"]["lpips"] == 0.25
    assert "lpips" not in result["absent"]
    assert "InceptionV3" in result["absent"]["fid"]
    html = (tmp_path / "report.html").read_text()
    assert "<th>LPIPS</th>" in html
    assert sha256[:16] in html


class Constant(Lpips):
    """Replaces LPIPS, without weights."""

    def __init__(self, weights, name):
        pass

    def to(self, device):
        return self

    def __call__(self, prediction, truth):
        return torch.full((len(prediction),), 0.25)


def test_metrics_by_label_are_not_logged_to_mlflow(shards, untrained_run, tmp_path, monkeypatch):
    """A label such as "tone, high" is not a valid name of a metric."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(untrained_run, run)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    result = evaluate.run(Evaluate(shards=shards, checkpoint=str(run), tracking_uri=uri)).values
    assert list(result["labels"]) == ["tone, high"]
    client = MlflowClient(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == mlflow_runs.EXPERIMENT]
    logged = {
        run.info.run_name: run.data.metrics
        for run in client.search_runs([experiment.experiment_id])
    }["stage3"]
    interval = result["intervals"]["psnr"]["missing"]
    assert logged["evaluation.intervals.psnr.missing.low"] == pytest.approx(interval["low"])
    assert logged["evaluation.conditions.missing.psnr"] == pytest.approx(
        result["conditions"]["missing"]["psnr"]
    )
    assert not any("tone" in name for name in logged)


def test_videos_are_colorized_and_compared(shards, untrained_run, clips, tmp_path):
    few = tmp_path / "videos"
    few.mkdir()
    for clip in sorted(clips.glob("*.mp4"))[:2]:
        shutil.copy(clip, few / clip.name)
    (few / "notes.txt").write_text("no video")
    done = evaluate.run(options(shards, untrained_run, out=str(tmp_path), limit=2, videos=str(few)))
    found = done.values["videos"]
    assert found["n"] == 2
    assert found["each"].keys() == {path.name for path in few.glob("*.mp4")}
    for row in found["each"].values():
        assert row["frames"] > 1
        assert 5 < row["psnr_db"] < 60
    mean = np.mean([row["flicker_ab"] for row in found["each"].values()])
    assert found["flicker_ab"] == pytest.approx(mean)
    assert "2 videos:" in done.text
    assert "2 videos were colorized" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(("name", "complaint"), [("nowhere", "no video or"), ("", "no video \\(")])
def test_a_place_without_videos_is_rejected(name, complaint, shards, untrained_run, tmp_path):
    place = str(tmp_path / name) if name else str(tmp_path)
    (tmp_path / "a.txt").write_text("")
    with pytest.raises((FileNotFoundError, ValueError), match=complaint):
        evaluate.run(options(shards, untrained_run, out=str(tmp_path), limit=2, videos=place))


def test_stage_1_is_evaluated_without_sound(shards, untrained_run, tmp_path):
    outcome = evaluate.run(options(shards, untrained_run / "stage1", out=str(tmp_path)))
    assert set(outcome.values["conditions"]) == {"missing", "image"}
    assert "stage 1" in outcome.values["absent"]["matched"]
    assert "its audio encoder is not trained" in (tmp_path / "report.html").read_text()


def test_the_default_output_is_beside_the_stages(untrained_run):
    place = str(untrained_run / "stage3" / "step-0000004")
    assert evaluate.default_out(place) == str(untrained_run / "evaluation")
    assert evaluate.default_out("/somewhere/weights") == "/somewhere/evaluation"


def test_limit(shards, untrained_run, tmp_path):
    outcome = evaluate.run(options(shards, untrained_run, limit=2, out=str(tmp_path)))
    assert outcome.values["protocol"]["n"] == 2


def test_ground_truth_of_another_world_is_rejected(shards, untrained_run, world, tmp_path):
    table = pq.read_table(world / "truth.parquet").slice(0, 30)
    pq.write_table(table, tmp_path / "truth.parquet")
    with pytest.raises(ValueError, match="does not know clip 'clip0000032_000000'"):
        evaluate.run(options(shards, untrained_run, truth=str(tmp_path)))


def test_other_files_are_rejected_as_ground_truth(tmp_path):
    with pytest.raises(FileNotFoundError, match="no ground truth at"):
        ground_truth.read(str(tmp_path))
    (tmp_path / "truth.parquet").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is not the ground truth of a synthetic world"):
        ground_truth.read(str(tmp_path))
    pq.write_table(pa.table({"key": ["a"]}), tmp_path / "truth.parquet")
    with pytest.raises(ValueError, match="is not the ground truth of a synthetic world"):
        ground_truth.read(str(tmp_path / "truth.parquet"))
