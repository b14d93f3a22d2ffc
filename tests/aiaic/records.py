"""A record of a checkpoint, as small as one can be."""

from aiaic.checkpointing.checkpoint import Record


def record(step: int, loss: float | None = None) -> Record:
    """Of stage 1 at a step, with or without a validation loss."""
    return Record(
        stage=1,
        step=step,
        recipe={"name": "tiny"},
        manifest_digest="0" * 64,
        split="train",
        init=None,
        metrics={} if loss is None else {"validation_loss": loss},
        curves=[{"step": 1.0, "loss": 0.5}],
        versions={"torch": "2", "cuda": "None"},
    )
