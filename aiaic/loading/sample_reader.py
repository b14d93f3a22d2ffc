"""Reads one sample: byte ranges through a callable -> a square picture and a window of sound."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from aiaic.audio import AudioConfig
from aiaic.config import Pixels
from aiaic.loading.augmentation import AugmentationConfig, mix
from aiaic.loading.batch import Draw
from aiaic.loading.decoding import crop, decode_picture, resize, sound_range, window
from aiaic.loading.sampler import SampleRef

Read = Callable[[str, str, int, int], bytes]
"""(shard, ``"picture"`` or ``"sound"``, offset, size) -> bytes; called from several threads."""

Protocol = Literal["center_crop", "resize"]
"""How evaluation makes a picture square: by its centre, or by squeezing its longer side."""

Draws = Sequence[float]
"""A sample's uniform random numbers, indexed by :class:`aiaic.loading.batch.Draw`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """Which part of a picture the networks see: short side resized, long side cropped."""

    size_px: Pixels = 96
    """Side of the square that the networks see."""
    flip: bool = True
    """Whether training mirrors half of the pictures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleReader:
    """Reads and decodes single samples; safe to use from several threads.

    Every random decision about a sample follows from its draws, so it is the same on any worker.
    """

    read: Read
    view: ViewConfig
    audio: AudioConfig | None
    """The front end, which determines the length of sound; None to read no sound."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """Augmentation of sounds in training."""
    other_frame: bool = False
    """Whether training batches contain another frame of each clip."""
    protocol: Protocol = "center_crop"
    """Of evaluation; training always crops."""

    def evaluated(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The square that evaluation shows of a picture [h w 3]."""
        if self.protocol == "resize":
            return resize(rgb, self.view.size_px, self.view.size_px)
        return crop(rgb, self.view.size_px, 0.5, 0.5)

    def picture(self, ref: SampleRef, draws: Draws, *, training: bool) -> NDArray[np.uint8]:
        """The picture to colorize, [size size 3], not mirrored."""
        frame = _frame_number(ref, draws)
        if training:
            return self._cropped(ref, frame, draws)
        return self.evaluated(self._decoded(ref, frame))

    def other_picture(self, ref: SampleRef, draws: Draws) -> NDArray[np.uint8]:
        """Another frame of the clip, [size size 3]; the same one if it has only one."""
        others = len(ref.pictures) - 1
        step = 1 + int(draws[Draw.OTHER_FRAME] * others) if others else 0
        return self._cropped(ref, (_frame_number(ref, draws) + step) % len(ref.pictures), draws)

    def waveform(
        self, ref: SampleRef, partner: SampleRef, draws: Draws, *, training: bool
    ) -> NDArray[np.int16]:
        """The sound, [t], in training mixed with the partner's if the draws say so."""
        sound = self._sound(ref, draws, training=training)
        if not training or not _mixes(ref, partner, draws, self.augmentation):
            return sound
        low, high = self.augmentation.mix_snr_low_db, self.augmentation.mix_snr_high_db
        snr_db = low + (high - low) * draws[Draw.MIX_LEVEL]
        return mix(sound, self._sound(partner, draws, training=True), snr_db)

    def _decoded(self, ref: SampleRef, frame: int) -> NDArray[np.uint8]:
        return decode_picture(self.read(ref.shard, "picture", *ref.pictures[frame]))

    def _cropped(self, ref: SampleRef, frame: int, draws: Draws) -> NDArray[np.uint8]:
        rgb = self._decoded(ref, frame)
        return crop(rgb, self.view.size_px, draws[Draw.CROP_X], draws[Draw.CROP_Y])

    def _sound(self, ref: SampleRef, draws: Draws, *, training: bool) -> NDArray[np.int16]:
        assert self.audio is not None
        if ref.sound is None:
            return np.zeros(self.audio.samples, np.int16)
        shifts = training and self.augmentation.shift
        position = draws[Draw.SHIFT] if shifts else 0.5
        needed = self.audio.samples
        pcm = self.read(ref.shard, "sound", *sound_range(ref.sound, needed, position))
        return window(pcm, needed, position, roll=shifts)


def _frame_number(ref: SampleRef, draws: Draws) -> int:
    return int(draws[Draw.FRAME] * len(ref.pictures))


def _mixes(
    ref: SampleRef, partner: SampleRef, draws: Draws, augmentation: AugmentationConfig
) -> bool:
    """Whether a sample's sound is mixed with its partner's: both have sound, of two videos."""
    both_sound = ref.sound is not None and partner.sound is not None
    chosen = draws[Draw.MIX] < augmentation.p_mix
    return chosen and both_sound and ref.youtube_id != partner.youtube_id
