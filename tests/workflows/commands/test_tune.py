"""Whole searches on Ray Tune: finished, continued, with trials that fail and that are killed."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.tune.schedulers import FIFOScheduler

from aiaic import config
from fault_injection.processes import descendants
from workflows import cli
from workflows.cluster import tuner
from workflows.tuning import search_space

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster"), pytest.mark.timeout(600)]

TRIALS = 4
Tune = Callable[..., Any]


@pytest.fixture(scope="module")
def base(
    shards: str, tiny: tuple[str, ...], ray_cluster: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished search, which tests copy."""
    out = tmp_path_factory.mktemp("base") / "search"
    arguments = ["--trials", str(TRIALS), "--tracking-uri", "none", "--set", *tiny]
    assert cli.main(["tune", "--shards", shards, "--out", str(out), *arguments]) == 0
    return out


@pytest.fixture
def out(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished search; what runs in it is not stopped early, whichever scores came
    first."""
    monkeypatch.setattr(tuner, "_scheduler", lambda *_: FIFOScheduler())
    return shutil.copytree(base, tmp_path / "search")


@pytest.fixture
def tune(shards: str, tiny: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> Tune:
    """Runs the command; gives its JSON, or its error line."""

    def run(out: Path, *more: str, trials: int = TRIALS, code: int = 0) -> Any:
        arguments = ["--trials", str(trials), "--tracking-uri", "none", "--json", "--set", *tiny]
        command = ["tune", "--shards", shards, "--out", str(out), *more, *arguments]
        assert cli.main(command) == code
        captured = capsys.readouterr()
        return json.loads(captured.out) if code == 0 else captured.err.splitlines()[-1]

    return run


def records(out: Path) -> dict[str, Any]:
    files = sorted((out / "trials").glob("*/trial.json"))
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def interrupt(out: Path, trial: str) -> None:
    """Leave a search as if it had been killed while the trial was in stage 3."""
    (out / "best.json").unlink(missing_ok=True)
    folder = out / "trials" / trial
    record = json.loads((folder / "trial.json").read_text())
    record |= {"state": "running", "scores": record["scores"][:1]}
    (folder / "trial.json").write_text(json.dumps(record))
    (folder / "stage3" / "stage.json").unlink(missing_ok=True)
    newest = max(folder.glob("stage3/step-*"))
    if len(list(folder.glob("stage3/step-*"))) > 1:
        shutil.rmtree(newest)


def finished_trial(out: Path) -> str:
    return next(name for name, trial in records(out).items() if trial["state"] == "finished")


def test_a_search_ends_in_a_file_that_trains(
    base: Path, shards: str, tune: Tune, tmp_path: Path
) -> None:
    best = json.loads((base / "best.json").read_text())
    trials = records(base)
    assert [trial["index"] for trial in trials.values()] == list(range(TRIALS))
    assert all(set(trial["settings"]) == set(search_space.DEFAULT) for trial in trials.values())
    assert {trial["state"] for trial in trials.values()} <= {"finished", "stopped"}
    assert max(len(trial["scores"]) for trial in trials.values()) == 4, "comparisons"
    finished = [trial for trial in trials.values() if trial["state"] == "finished"]
    assert best["score"] == min(trial["scores"][-1]["validation_colour"] for trial in finished)
    assert best["search"]["trials"] == TRIALS
    assert best["search"]["stopped_early"] == TRIALS - len(finished)
    kept = {path.name for path in base.iterdir()} - {".training.lock"}
    assert kept == {"best.json", "search.json", "stage1", "trials"}, "none of Tune's own state"
    assert tune(base) == best | {"best": str(base / "best.json")}

    run = str(tmp_path / "run")
    train = ["train", "--stage", "all", "--shards", shards, "--out", run, "--tracking-uri", "none"]
    assert cli.main([*train, "--config", str(base / "best.json")]) == 0
    record = json.loads(Path(run, "stage3/step-0000004/checkpoint.json").read_text())
    chosen = config.dotted_keys(record["recipe"])
    found = best["search"]["found"]
    assert {key: chosen[key] for key in found} == found


def test_other_settings_are_refused(base: Path, tune: Tune) -> None:
    assert "trials was 4, is now 5" in tune(base, trials=5, code=1)
    assert "search was 'random', is now 'optuna'" in tune(base, "--search", "optuna", code=1)


def test_an_interrupted_search_resumes_its_trials_and_draws_the_others(
    base: Path, out: Path, tune: Tune
) -> None:
    name = finished_trial(out)
    interrupt(out, name)
    others = [other for other in records(out) if other != name]
    last = others[-1]
    shutil.rmtree(out / "trials" / last)
    step_1 = max((out / "trials" / name / "stage2").glob("step-*")).stat().st_mtime_ns
    tune(out)
    before, after = records(base), records(out)
    assert after.keys() == before.keys()
    assert after[name] == before[name] | {"scores": after[name]["scores"]}
    assert after[name]["scores"][-1] == before[name]["scores"][-1], "the same bytes"
    assert max((out / "trials" / name / "stage2").glob("step-*")).stat().st_mtime_ns == step_1
    assert after[last]["settings"] == before[last]["settings"]
    assert after[last]["state"] == "finished"
    for other in others[:-1]:
        assert after[other] == before[other]


def test_a_killed_trial_restarts_under_its_own_id(
    base: Path, out: Path, tune: Tune, caplog: pytest.LogCaptureFixture
) -> None:
    name = finished_trial(out)
    interrupt(out, name)
    shutil.rmtree(out / "trials" / name / "stage3")
    over = threading.Event()
    killed: list[int] = []

    def kill_once() -> None:
        found: list[int] = []
        while not killed and not over.wait(0.002):
            if not found:
                lines = descendants(os.getpid()).items()
                found = [pid for pid, line in lines if "ray::ImplicitFunc.train" in line]
            elif (out / "trials" / name / "stage3").exists():
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])

    killer = threading.Thread(target=kill_once)
    killer.start()
    try:
        tune(out)
    finally:
        over.set()
        killer.join()
    assert killed
    assert f"trial {name} was lost, and restarts" in caplog.text
    trial = records(out)[name]
    assert (trial["state"], trial["reason"]) == ("finished", None)
    assert trial["scores"][-1] == records(base)[name]["scores"][-1]


def test_a_failed_trial_is_recorded_with_its_reason(base: Path, tune: Tune, tmp_path: Path) -> None:
    space = tmp_path / "space.json"
    space.write_text('{"stage2.learning_rate": {"choices": [1e-3, 1e30]}}')
    init = ("--init", str(base / "stage1"), "--space", str(space), "--search", "optuna")
    best = tune(tmp_path / "search", *init, trials=3)
    found = {
        trial["settings"]["stage2.learning_rate"]: (trial["state"], trial["reason"])
        for trial in records(tmp_path / "search").values()
    }
    assert best["search"]["found"] == {"stage2.learning_rate": 1e-3}
    assert best["search"]["failed"] > 0
    state, reason = found[1e30]
    assert state == "failed"
    assert "learning_rate" in reason


def test_a_search_of_an_earlier_version_is_continued(base: Path, out: Path, tune: Tune) -> None:
    """Its trials were in Tune's files and had Tune's names; one was interrupted, one not drawn."""
    name = finished_trial(out)
    interrupt(out, name)
    expected = records(base)
    shutil.rmtree(out / "trials" / max(other for other in expected if other != name))
    (out / "search").mkdir()
    (out / "search" / "tuner.pkl").write_bytes(b"\x80not to be loaded")
    for trial in records(out).values():
        theirs = f"3256e_{trial['index']:05d}"
        (out / "trials" / trial["id"]).rename(out / "trials" / theirs)
        (out / "trials" / theirs / "trial.json").unlink()
        folder = out / "search" / theirs
        folder.mkdir()
        (folder / "params.json").write_text(json.dumps(trial["settings"]))
        done = trial["state"] != "running"
        rows = [row | {"done": done and row is trial["scores"][-1]} for row in trial["scores"]]
        (folder / "result.json").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    tune(out)
    found = {trial["index"]: trial for trial in records(out).values()}
    assert sorted(found) == list(range(TRIALS))
    assert sum(trial["id"].startswith("3256e_") for trial in found.values()) == TRIALS - 1
    resumed = found[expected[name]["index"]]
    assert resumed["state"] == "finished"
    assert resumed["scores"][-1] == expected[name]["scores"][-1]
