"""MLflow: found again by tag, nothing twice, no secrets."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from aiaic.checkpointing import checkpoint
from workflows import cli
from workflows.tracking import mlflow_runs


class KilledError(Exception):
    """Stands for a crash."""


@pytest.fixture
def train(
    shards: str, tiny: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Runs the command in a separate folder."""
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "--shards", shards, "--out", "run", "--set", *tiny]
    return lambda *more: cli.main([*arguments, *more])


def runs(client: MlflowClient) -> dict[str, Run]:
    experiment = client.get_experiment_by_name(mlflow_runs.EXPERIMENT)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    return {run.info.run_name or "": run for run in found}


def test_a_resumed_run_is_logged_to_its_earlier_mlflow_runs(
    train: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = checkpoint.commit

    def dying(final: Path, fill: Any) -> Path:
        if final == tmp_path / "run" / "stage1" / checkpoint.step_name(4):
            raise KilledError
        return commit(final, fill)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "commit", dying)
        with pytest.raises(KilledError):
            train("--stage", "1")
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    before = runs(client)
    assert {name: run.info.status for name, run in before.items()} == {
        "run": "FAILED",
        "stage1": "FAILED",
    }
    assert train("--stage", "all") == 0
    assert train("--stage", "all") == 0
    found = runs(client)
    assert set(found) == {"run", "stage1", "stage2", "stage3"}
    assert found["stage1"].info.run_id == before["stage1"].info.run_id
    for stage in ("stage1", "stage2", "stage3"):
        run = found[stage]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == found["run"].info.run_id
        steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")]
        assert steps == [1, 2, 3, 4]
        assert 0 < run.data.metrics["throughput/goodput"] <= 1
        assert run.data.metrics["throughput/samples_per_s"] > 0
        assert run.data.params["model.backbone.width"] == "8"
        assert len(run.data.params["manifest_digest"]) == 64
        logged = client.list_artifacts(run.info.run_id, "checkpoint")
        assert {Path(file.path).name for file in logged} == {checkpoint.RECORD, checkpoint.MODEL}
        assert (run.info.artifact_uri or "").startswith(str(tmp_path / "mlflow-artifacts"))


def test_a_server_that_is_not_there_is_one_line(
    train: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--stage", "1", "--tracking-uri", "http://127.0.0.1:9") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert "http://127.0.0.1:9" in line
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://bucket/key?scheme=http", "s3://bucket/key?scheme=http"),
        ("https://user:word@host/x", "https://***@host/x"),
        ("s3://b/k?access_key=AB&secret_key=CD&region=e", "s3://b/k?access_key=***&secret_key=***&region=e"),
        ("http://h/?sessionToken=1", "http://h/?sessionToken=***"),
    ],
)  # fmt: skip
def test_secrets_are_redacted(text: str, shown: str) -> None:
    assert mlflow_runs.redacted(text) == shown


def test_several_processes_open_a_new_database_at_once(tmp_path: Path) -> None:
    code = f"from workflows.tracking import mlflow_runs; mlflow_runs.Runs(None, {str(tmp_path)!r})"
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    opened = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    errors = [process.communicate(timeout=240)[1] for process in opened]
    assert [process.returncode for process in opened] == [0, 0, 0], errors
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    assert client.get_experiment_by_name(mlflow_runs.EXPERIMENT) is not None


def test_an_experiment_that_another_process_creates_first_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    expected = mlflow_runs.Runs(uri, "run").id_of("a")
    found = MlflowClient.get_experiment_by_name
    answers = iter([None])
    monkeypatch.setattr(
        MlflowClient,
        "get_experiment_by_name",
        lambda self, name: next(answers) if answers.__length_hint__() else found(self, name),
    )
    assert mlflow_runs.Runs(uri, "run").id_of("a") == expected
