"""Jobs that are refused before anything starts."""

import dataclasses
from pathlib import Path

import pytest

from aiaic import recipes
from fault_injection.tiny_recipe import TINY
from workflows.artifacts.samples import open_samples
from workflows.training.job import Job, check_job


@pytest.mark.parametrize("stage", [2, 3])
def test_stages_that_learn_from_sound_need_clips_with_sound(
    shards: str, untrained_run: Path, tmp_path: Path, stage: int
) -> None:
    samples = open_samples(shards, "train")
    silent = dataclasses.replace(
        samples, train=tuple(dataclasses.replace(clip, sound=None) for clip in samples.train)
    )
    job = Job(
        stages=(stage,),
        recipe=recipes.load(settings=TINY),
        shards=shards,
        split="train",
        out=str(tmp_path / "run"),
        init=str(untrained_run / f"stage{stage - 1}"),
    )
    check_job(job, samples, workers=[1])
    with pytest.raises(ValueError, match=f"no clips with sound, from which stage {stage} learns"):
        check_job(job, silent, workers=[1])
