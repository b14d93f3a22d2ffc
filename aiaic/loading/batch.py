"""The input of a stage: pictures and sounds of one step, with their random numbers."""

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
    """One worker's samples of a step; the global batch may be spread over several workers.

    Every random decision about a sample is taken from ``draws``, which depend only on (seed, epoch,
    sample), so a step is the same on any number of workers.
    """

    keys: tuple[str, ...]
    """Sample ids, unique in the shard set."""
    video: Int64[Tensor, " b"]
    """Hash of the video id: clips of one video are never negatives of each other."""
    position: Int64[Tensor, " b"]
    """Position of each sample in the global batch, 0 to ``global_size`` - 1."""
    picture: UInt8[Tensor, "b 3 h w"]
    """sRGB, all of one size, oriented as in the file; see :func:`mirrored`."""
    other_picture: UInt8[Tensor, "b 3 h w"] | None = None
    """Another frame of each clip, or the same one if it has no other; None if the stage needs
    none."""
    waveform: Int16[Tensor, "b t"] | None
    """Mono sound, full scale 32,768; zeros for missing sound. None if the stage needs none."""
    has_sound: Bool[Tensor, " b"]
    """Whether the clip has usable sound (it exists and is at least -60 dBFS)."""
    draws: Float[Tensor, "b 19"]
    """Uniform numbers in [0, 1); columns as in :class:`Draw`."""
    global_size: int
    """Number of samples in the global batch, over all workers."""
    ledger: int = 0
    """Sum of :func:`aiaic.loading.sampler.ledger_entry` over these samples, modulo 2**63; 0 in
    evaluation. Summed over steps and workers, it proves that no sample was lost or seen twice."""

    def __len__(self) -> int:
        return len(self.keys)

    def draw(self, which: Draw) -> Float[Tensor, " b"]:
        """The uniform numbers for one random decision."""
        return self.draws[:, which]

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on ``device``, pictures in the fastest memory format.

        The loader's pictures are ``channels_last``, which is kept on GPUs; on CPUs GroupNorm is
        several times slower in this format.
        """
        moved = {
            field.name: value.to(device, non_blocking=True)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        if device.type == "cpu":
            moved = {name: value.contiguous() for name, value in moved.items()}
        return dataclasses.replace(self, **moved)


def mirrored(batch: Batch, *, flip: bool) -> Batch:
    """The batch with those pictures mirrored whose draws say so; unchanged if not ``flip``.

    Done on the device: a decoding thread, which must copy in memory order, would spend two thirds
    of the time of decoding on it. ``other_picture`` is never mirrored.
    """
    if not flip:
        return batch
    chosen = (batch.draw(Draw.FLIP) < 0.5)[:, None, None, None]
    picture = torch.where(chosen, batch.picture.flip(3), batch.picture)
    return dataclasses.replace(batch, picture=picture)
