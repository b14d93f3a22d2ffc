"""What an evaluation is asked to do, as plain values."""

import dataclasses

from aiaic.loading.sample_reader import Protocol
from data_prep import storage


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """What to evaluate, and how: all that a worker on another machine needs to know."""

    shards: str
    """Place of the shards."""
    checkpoint: str
    """Place of a checkpoint, or of a run or stage, whose best checkpoint is evaluated."""
    split: str
    """Split to evaluate."""
    truth: str | None = None
    """Place of a synthetic world's ground truth: its file, or the folder of the world."""
    predictions: str | None = None
    """Folder to write predictions to; None: they are not kept."""
    limit: int | None = None
    """Evaluate only the first clips, this many."""
    protocol: Protocol = "center_crop"
    """How a picture is made square."""
    size_px: int | None = None
    """Side of the square; None: the size of the training pictures."""
    lpips_weights: str | None = None
    """Place of AlexNet's weights, for LPIPS."""
    inception_weights: str | None = None
    """Place of InceptionV3's weights, for FID and KID."""

    def with_absolute_places(self) -> "EvaluationJob":
        """The same job with places that mean the same in every process and working directory."""
        places = {
            name: storage.absolute(place)
            for name in (
                "shards", "checkpoint", "truth", "predictions", "lpips_weights",
                "inception_weights",
            )
            if (place := getattr(self, name)) is not None
        }  # fmt: skip
        return dataclasses.replace(self, **places)
