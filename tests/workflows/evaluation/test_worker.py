"""The same evaluation on any number of workers, and after a worker's death."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import ray

from aiaic.checkpointing import checkpoint
from workflows import cli
from workflows.cluster import evaluation_actors
from workflows.commands import evaluate
from workflows.options import Evaluate


@pytest.fixture
def small_batches(untrained_run: Path, tmp_path: Path) -> Path:
    """The run with two clips per batch: its 32 training clips make four chunks."""
    run = tmp_path / "run"
    shutil.copytree(untrained_run, run)
    for file in run.glob(f"stage*/*/{checkpoint.RECORD}"):
        record = checkpoint.read_record(file.parent)
        record.recipe["sampling"]["batch_size"] = 2
        checkpoint.write_record(file.parent, record, tuple(record.files))
    return run


@pytest.mark.ray
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("ray_cluster")
def test_the_number_of_workers_and_their_deaths_do_not_change_the_result(
    shards: str, small_batches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[int, Any] = {}
    for workers in (0, 1, 2):
        if workers == 2:
            score = evaluation_actors.RayEvaluator.score

            def killing(self: Any, assignments: Any, score: Any = score) -> Any:
                ray.kill(self._actors[0], no_restart=False)
                return score(self, assignments)

            monkeypatch.setattr(evaluation_actors.RayEvaluator, "score", killing)
        options = Evaluate(
            shards=shards,
            checkpoint=str(small_batches),
            split="train",
            out=str(tmp_path / str(workers)),
            predictions=str(tmp_path / "predictions"),
            workers=workers,
            tracking_uri="none",
        )
        evaluate.run(options)
        found[workers] = json.loads((tmp_path / str(workers) / "report.json").read_text())
        del found[workers]["seconds"]
    assert found[0]["conditions"]["missing"]["n"] == 32
    assert json.dumps(found[0]) == json.dumps(found[1]) == json.dumps(found[2])
    assert len(list((tmp_path / "predictions" / "missing").glob("*.npz"))) == 32


def test_a_negative_number_of_workers_is_rejected(
    shards: str, untrained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--shards", shards, "--checkpoint", str(untrained_run)]
    assert cli.main([*arguments, "--workers", "-1", "--tracking-uri", "none"]) == 1
    assert "--workers is -1" in capsys.readouterr().err.splitlines()[-1]
