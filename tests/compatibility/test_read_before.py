"""Data of earlier versions is read, resumed and continued: see README.md beside this file."""

import functools
import hashlib
import json
import operator
import os
import platform
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from workflows import cli

REPOSITORY = Path(__file__).parents[2]
WAV_HEADER = 44
PLACES = ("rebuilt", "shards")
FIXTURES = sorted(path.parent for path in Path(__file__).parent.glob("fixtures/*/made.json"))


class Before:
    """The data of one version, unpacked on demand."""

    def __init__(self, fixtures: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._fixtures, self._folder, self._capsys = fixtures, folder, capsys
        self.made: dict[str, Any] = json.loads((fixtures / "made.json").read_text())

    def unpack(self, *archives: str) -> None:
        for name in archives:
            with tarfile.open(self._fixtures / f"{name}.tar.xz") as tar:
                tar.extractall(self._folder, filter="data")

    def run(self, name: str, *more: str) -> Any:
        """The result of one of the commands that made the fixtures."""
        self._capsys.readouterr()
        code = cli.main([*self.made["commands"][name], *more, "--json"])
        captured = self._capsys.readouterr()
        assert code == 0, captured.err
        return json.loads(captured.out.splitlines()[-1])

    def run_reproducibly(self, name: str) -> None:
        """Run a command in the environment that makes results independent of the processor."""
        arguments = [sys.executable, "-m", "workflows.cli", *self.made["commands"][name]]
        environment = os.environ | self.made["environment"] | {"PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            arguments,
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def require(self, *packages: str) -> None:
        """Skip where libraries differ from those then: they may give other bytes."""
        ours = {name: version(name) for name in packages} | {"machine": platform.machine()}
        theirs = {name: self.made["versions"][name] for name in ours}
        if ours != theirs:
            pytest.skip(f"made with {theirs}, this is {ours}")


def test_there_are_fixtures() -> None:
    assert FIXTURES


@pytest.fixture(params=FIXTURES, ids=lambda path: path.name)
def before(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Before:
    monkeypatch.chdir(tmp_path)
    return Before(request.param, tmp_path, capsys)


def content(folder: str) -> dict[str, str]:
    """SHA-256 of each file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def without_records(found: dict[str, str]) -> dict[str, str]:
    return {name: sha for name, sha in found.items() if not name.startswith("records/")}


def stages(run: str) -> dict[str, str]:
    """SHA-256 of the weights of a run."""
    return {name: sha for name, sha in content(run).items() if name.endswith(".safetensors")}


def rows(shards: str) -> pa.Table:
    """The index, without what follows from the last bit of a sound."""
    (file,) = Path(shards).glob("index-*.parquet")
    return pq.read_table(file).drop_columns(["shard", "rms_dbfs", "peak_dbfs"])


def members(shards: str, kind: str) -> dict[str, bytes]:
    """The files in all tars of pictures, or of sounds, in their order."""
    found: dict[str, bytes] = {}
    for path in sorted(Path(shards, "shards").glob(f"*.{kind}.tar")):
        with tarfile.open(path) as tar:
            found |= {member.name: tar.extractfile(member).read() for member in tar}
    return found


def samples(wav: bytes) -> np.ndarray:
    return np.frombuffer(wav[WAV_HEADER:], "<i2").astype(int)


def assert_same_picture(ours: str, theirs: str) -> None:
    """Up to rounding, which depends on the processor."""
    first, second = (np.asarray(Image.open(path)).astype(int) for path in (ours, theirs))
    assert first.shape == second.shape
    assert np.abs(first - second).max() <= 2
    assert np.abs(first - second).mean() < 0.1


def test_shards_are_whole(before: Before) -> None:
    before.unpack("shards")
    assert cli.main(["verify", "--shards", "shards"]) == 0


def test_preparing_the_same_clips_changes_nothing(before: Before) -> None:
    """A shard with a clip whose sound is silent is decoded again, since its channels may have
    cancelled each other; it is the same."""
    before.require("av", "numpy", "pyarrow", "simplejpeg", "soundfile")
    before.unpack("clips", "shards")
    found = content("shards")
    (index,) = Path("shards").glob("index-*.parquet")
    rebuilt = {
        row["shard"] for row in pq.read_table(index).to_pylist() if row["sound_fate"] == "silent"
    }
    kept = len(list(Path("shards/records").iterdir())) - len(rebuilt)
    assert before.run("prepare")["reused_shards"] == kept
    assert without_records(content("shards")) == without_records(found)


def test_the_same_clips_give_the_same_samples(before: Before) -> None:
    """Sounds may differ in the last bit: FFmpeg's AAC decoder rounds by the kind of processor."""
    before.require("av", "numpy", "pyarrow", "simplejpeg", "soundfile")
    before.unpack("clips", "shards")
    before.run("prepare", "--out", "rebuilt")
    ours, theirs = (json.loads(Path(place, "manifest.json").read_text()) for place in PLACES)
    for values in (ours, theirs):
        del values["index"], values["shards"]  # which name files by their contents
    assert ours == theirs
    assert rows("rebuilt").equals(rows("shards"))
    found, expected = (members(place, "picture") for place in PLACES)
    assert found == expected
    found, expected = (members(place, "sound") for place in PLACES)
    assert list(found) == list(expected)
    for key, sound in expected.items():
        assert found[key][:WAV_HEADER] == sound[:WAV_HEADER]
        assert np.abs(samples(found[key]) - samples(sound)).max(initial=0) <= 1


def test_a_run_has_the_same_scores(before: Before) -> None:
    before.unpack("shards", "run")
    found, expected = before.run("evaluate"), before.made["evaluation"]
    assert found["protocol"] == expected["protocol"]
    assert set(found["conditions"]) == set(expected["conditions"])
    for name, scores in expected["conditions"].items():
        assert found["conditions"][name] == pytest.approx(scores, rel=1e-3)


def test_a_finished_run_is_left_as_it_is(before: Before) -> None:
    before.unpack("shards", "run")
    found = content("run")
    assert set(before.run("train")["stages"]) == {"1", "2", "3"}
    assert content("run") == found


@pytest.mark.parametrize("run", ["stopped1", "stopped2", "stopped3"])
def test_a_stopped_run_ends_in_the_same_bytes(before: Before, run: str) -> None:
    before.require("numpy", "simplejpeg", "torch", "torchaudio")
    before.unpack("shards", "run", run)
    before.run_reproducibly(run)
    assert stages(run) == before.made["sha256"][run]


def test_a_stopped_run_continues_its_mlflow_runs(before: Before, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    before.unpack("shards", "run", "stopped3")
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.create_experiment("aiaic", artifact_location=str(tmp_path / "artifacts"))
    key = hashlib.sha256(f"{tmp_path}/stopped3#stage3".encode()).hexdigest()[:32]
    tags = {"aiaic.key": key, "aiaic.run": f"{tmp_path}/stopped3", "mlflow.runName": "stage3"}
    run = client.create_run(experiment, tags=tags).info.run_id
    client.log_metric(run, "loss", 1.0, step=10)
    before.run("stopped3", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db")
    found = client.search_runs([experiment])
    assert {run.info.run_name for run in found} == {"stopped3", "stage3"}
    steps = [point.step for point in client.get_metric_history(run, "loss")]
    assert steps == [10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize("checkpoint", ["run", "model"])
def test_a_picture_gets_the_same_colours(before: Before, checkpoint: str) -> None:
    before.unpack("clips", "run", "model")
    theirs = f"coloured/{checkpoint}.png"
    before.run(f"colorize_{checkpoint}", "--out", "ours.png")
    assert_same_picture("ours.png", theirs)


def test_a_run_gives_the_same_export(before: Before) -> None:
    before.unpack("run", "model")
    before.run("export", "--out", "ours")
    assert content("ours").keys() == content("model").keys()
    for name in ("checkpoint.json", "model.safetensors"):
        assert content("ours")[name] == content("model")[name]


def test_what_a_search_has_found_is_trained(before: Before) -> None:
    before.unpack("shards", "run", "search")
    best = json.loads(Path("best.json").read_text())
    arguments = ["train", "--stage", "2", "--shards", "shards", "--out", "best"]
    arguments += ["--init", "run/stage1", "--config", "best.json", "--tracking-uri", "none"]
    assert cli.main([*arguments, "--set", "stage2.steps=2"]) == 0
    (file,) = Path("best/stage2").glob("step-*/checkpoint.json")
    recipe = json.loads(file.read_text())["recipe"]
    for key, value in best["search"]["found"].items():
        assert functools.reduce(operator.getitem, key.split("."), recipe) == value


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_search_is_continued(before: Before) -> None:
    """In another folder; trials that ended are kept, and the interrupted one is resumed."""
    before.unpack("shards", "run", "search")
    (resumed,) = (name for name, state in before.made["trials"].items() if state == "interrupted")
    found = content("search/trials")
    best, theirs = before.run("tune"), json.loads(Path("best.json").read_text())
    assert (best["search"]["trials"], best["search"]["failed"]) == (4, 0)
    assert best["score"] <= theirs["score"] + 1e-6  # that of a trial that had finished
    ours = content("search/trials")
    kept = {name for name in found if not name.startswith(f"{resumed}/stage3/")}
    assert {name: ours.get(name) for name in kept} == {name: found[name] for name in kept}
    assert len({name.partition("/")[0] for name in ours}) == 4
