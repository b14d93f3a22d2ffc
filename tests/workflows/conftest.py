"""Small shards, settings that make training take a second, and one Ray cluster for all tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep import catalog
from data_prep.media.sample import MediaSettings
from data_prep.shards import build
from fault_injection.tiny_recipe import TINY

SETTINGS = (
    *TINY,
    *(f"stage{stage}.steps=4" for stage in (1, 2, 3)),
    "training.report_every=1",
    "training.save_every=2",
)
TRAIN_CLIPS, TEST_CLIPS = 32, 4


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Settings of a run that takes about a second."""
    return SETTINGS


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory, make_clip: Callable[..., Path]) -> Path:
    """A folder ``clips`` of MP4 files, and beside it their VGGSound csv."""
    folder = tmp_path_factory.mktemp("world")
    rows = []
    for number in range(TRAIN_CLIPS + TEST_CLIPS):
        make_clip(
            folder / "clips" / f"clip{number:07d}_000000.mp4",
            seconds=1.2,
            color=tuple(np.random.default_rng(number).integers(40, 216, 3)),
            tone_hz=300 + 20 * number,
        )
        split = "train" if number < TRAIN_CLIPS else "test"
        rows.append(f'clip{number:07d},0,"tone, high",{split}\n')
    (folder / "clips.csv").write_text("".join(rows))
    return folder / "clips"


@pytest.fixture(scope="session")
def shards(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The clips as four shards."""
    out = str(tmp_path_factory.mktemp("shards"))
    settings = build.BuildSettings(media=MediaSettings(size_px=32), shards=4)
    build.build(catalog.read_vggsound(str(clips.parent / "clips.csv"), str(clips)), settings, out)
    return out


@pytest.fixture(scope="session")
def untrained_run(tmp_path_factory: pytest.TempPathFactory, shards: str) -> Path:
    """A run whose three stages are finished and hold random weights."""
    from aiaic import config, recipes
    from aiaic.checkpointing import checkpoint
    from aiaic.networks.model import build_model
    from data_prep.shards import manifest
    from workflows.artifacts import run_folder

    run = tmp_path_factory.mktemp("untrained") / "run"
    recipe = recipes.load(settings=TINY)
    for stage in run_folder.STAGES:
        record = checkpoint.Record(
            stage=stage,
            step=4,
            recipe=config.to_json(recipe),
            manifest_digest=manifest.load_manifest(shards).digest,
            split="train",
            init=None,
            metrics={"validation_loss": 1.0},
            curves=[{"step": 2.0, "loss": 2.0}, {"step": 4.0, "loss": 1.0, "validation_loss": 1.0}],
            versions={},
        )
        weights = build_model(recipe.model, seed=stage).state_dict()
        folder = run / f"stage{stage}" / checkpoint.step_name(4)
        checkpoint.commit(
            folder,
            lambda part, record=record, weights=weights: checkpoint.write(
                part, record, weights, {}
            ),
        )
        run_folder.finish(
            str(folder.parent),
            run_folder.StageResult(
                stage=stage,
                final=folder.name,
                best=folder.name,
                steps=4,
                seconds=1.5,
                metrics=record.metrics,
                precision="fp32",
                samples_per_s=1.0,
            ),
        )
    return run


@pytest.fixture(scope="session")
def ray_cluster(rclone_s3: Any) -> Iterator[None]:
    """One Ray cluster in this machine for all tests of a session; its workers reach the store."""
    from workflows.cluster import session

    with pytest.MonkeyPatch.context() as patch:
        rclone_s3.use(patch)
        with session.connected(cpus=4):
            patch.undo()
            yield
