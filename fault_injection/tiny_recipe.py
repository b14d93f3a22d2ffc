"""Settings for training runs of a few seconds; tests add numbers of steps and save intervals."""

TINY = (
    *(f"model.{part}.width=8" for part in ("backbone", "scene", "sound")),
    *(f"model.guidance.{part}_width=8" for part in ("mlp", "score")),
    "model.audio.clip_s=0.5",
    "model.audio.mels=16",
    "model.semantics=8",
    "model.scene_px=32",
    "view.size_px=32",
    "sampling.batch_size=8",
    "sampling.streams=4",
    "training.threads=1",
    "training.decode_threads=1",
    "training.precision=fp32",
)
