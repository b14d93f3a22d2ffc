"""What the loader hands to a stage: pictures and sounds of one step, with their random numbers."""

import dataclasses
import enum

import torch
from jaxtyping import Bool, Float, Int16, Int64, UInt8
from torch import Tensor


class Draw(enum.IntEnum):
    """Columns of :attr:`Batch.draws`: one uniform number per sample and random decision."""

    FRAME = 0
    CROP_X = 1
    CROP_Y = 2
    FLIP = 3
    SHIFT = 4
    MISSING = 5
    MISMATCH = 6
    PARTNER = 7
    VIEW_SCALE = 8
    VIEW_X = 9
    VIEW_Y = 10
    VIEW_FLIP = 11
    OTHER_FRAME = 12
    MIX = 13
    MIX_LEVEL = 14
    MASK_TIME_WIDTH = 15
    MASK_TIME = 16
    MASK_MEL_WIDTH = 17
    MASK_MEL = 18


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """The samples of one step that one worker owns; the global batch may be spread over several.

    Every random decision about a sample is taken from ``draws``, which depend on (seed, epoch,
    sample) alone, so a step is the same on any number of workers.
    """

    keys: tuple[str, ...]
    """Sample ids, unique in the shard set."""
    video: Int64[Tensor, " b"]
    """A hash of the video id: clips of one video are never negatives of each other."""
    position: Int64[Tensor, " b"]
    """Place of each sample in the global batch, 0 to ``global_size`` - 1."""
    picture: UInt8[Tensor, "b 3 h w"]
    """sRGB, the whole batch at one size."""
    other_picture: UInt8[Tensor, "b 3 h w"] | None = None
    """Another frame of each clip, the same one where there is no other; None if the stage needs
    none."""
    waveform: Int16[Tensor, "b t"] | None
    """Mono sound, full scale 32,768; zeros where there is none. None if the stage needs none."""
    has_sound: Bool[Tensor, " b"]
    """Whether the clip has usable sound (it exists and is not under -60 dBFS)."""
    draws: Float[Tensor, "b 19"]
    """Uniform numbers in [0, 1), columns as in :class:`Draw`."""
    global_size: int
    """Number of samples in the global batch, over all workers."""
    ledger: int = 0
    """Sum of the hashes of (step, sample); see :func:`aiaic.plan.ledger`."""

    def __len__(self) -> int:
        return len(self.keys)

    def draw(self, which: Draw) -> Float[Tensor, " b"]:
        """The uniform numbers for one decision."""
        return self.draws[:, which]

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on ``device``."""
        moved = {
            field.name: value.to(device, non_blocking=True)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **moved)
