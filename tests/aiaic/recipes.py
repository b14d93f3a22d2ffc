"""A recipe small enough for tests, on the samples of ``samples.py``."""

from aiaic import config
from aiaic.training.recipe import Recipe

TINY = config.override(
    Recipe(name="tiny"),
    {
        "model.backbone.width": 8,
        "model.scene.width": 8,
        "model.sound.width": 8,
        "model.semantics": 16,
        "model.scene_px": 16,
        "model.audio.clip_s": 0.5,
        "model.audio.mels": 32,
        "model.guidance.score_width": 16,
        "model.guidance.mlp_width": 16,
        "view.size_px": 32,
        "sampling.batch_size": 8,
        "stage1.steps": 20,
        "stage2.steps": 20,
        "stage3.steps": 20,
        "training.precision": "fp32",
        "training.threads": 1,
        "training.report_every": 1,
        "training.validate_every": 10,
        "training.save_every": 10,
    },
)
