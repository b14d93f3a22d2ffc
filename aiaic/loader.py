"""Follows the plan: reads byte ranges through a callable, decodes in threads, makes batches."""

import collections
import dataclasses
import hashlib
import io
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
import simplejpeg
import soundfile
import torch
from numpy.typing import NDArray
from PIL import Image

from aiaic import plan
from aiaic.audio import AudioConfig
from aiaic.augmentation import AugmentationConfig, mix
from aiaic.batch import Batch, Draw
from aiaic.plan import SampleRef, SamplingConfig, Step

Read = Callable[[str, str, int, int], bytes]
"""(shard, ``"picture"`` or ``"sound"``, offset, size) -> bytes; called from several threads."""

Protocol = Literal["center_crop", "resize"]
"""How evaluation makes a picture square: the centre of it, or all of it with its sides squeezed."""

_AHEAD = 4  # batches that are read while one is trained on


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """What is shown of a picture: short side resized, then cropped along the long side."""

    size_px: int = 96
    """Side of the square the networks see."""
    flip: bool = True
    """Whether training mirrors half of the pictures."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """The samples of a training run, and how to read them."""

    train: tuple[SampleRef, ...]
    validation: tuple[SampleRef, ...]
    """Samples held out from the split: for choosing the best checkpoint, never for evaluation."""
    read: Read
    manifest_digest: str
    """SHA-256 of the shards' manifest."""
    split: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loader:
    """Turns samples into batches."""

    read: Read
    view: ViewConfig
    audio: AudioConfig | None
    """The front end whose length of sound is cut; None where no sound is to be read."""
    augmentation: AugmentationConfig = AugmentationConfig()
    """What training does to sounds."""
    other_frame: bool = False
    """Whether training sees another frame of each clip beside the one that it colours."""
    threads: int = 2
    protocol: Protocol = "center_crop"
    """Of evaluation; training always crops."""

    def training(
        self,
        samples: Sequence[SampleRef],
        sampling: SamplingConfig,
        rank: int,
        world_size: int,
        start: int,
    ) -> Generator[Batch, None, None]:
        """One worker's batches from global step ``start`` on, without end."""
        steps = plan.steps(samples, sampling, rank, world_size, start)
        return self._follow(steps, samples, sampling.seed)

    def evaluation(
        self, samples: Sequence[SampleRef], batch_size: int
    ) -> Generator[Batch, None, None]:
        """All samples in order, each once, as :meth:`evaluated` shows them, without any draw."""
        starts = range(0, len(samples), batch_size)
        indices = (np.arange(i, min(i + batch_size, len(samples))) for i in starts)
        steps = (
            Step(
                epoch=0,
                indices=part,
                positions=np.arange(len(part)),
                partners=part,
                global_size=len(part),
            )
            for part in indices
        )
        return self._follow(steps, samples, None)

    def evaluated(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The square that evaluation shows of a picture."""
        if self.protocol == "resize":
            return _resized(rgb, self.view.size_px, self.view.size_px)
        return crop(rgb, self.view.size_px, 0.5, 0.5)

    def _follow(
        self, steps: Iterable[Step], samples: Sequence[SampleRef], seed: int | None
    ) -> Generator[Batch, None, None]:
        with ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as pool:
            waiting: collections.deque[tuple[Step, list[Future[_Decoded]]]] = collections.deque()
            try:
                for step in steps:
                    pairs = zip(step.indices, step.partners, strict=True)
                    jobs = [
                        pool.submit(self._decode, samples[i], samples[j], step.epoch, seed)
                        for i, j in pairs
                    ]
                    waiting.append((step, jobs))
                    if len(waiting) > _AHEAD:
                        yield _batch(*waiting.popleft())
                while waiting:
                    yield _batch(*waiting.popleft())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _decode(
        self, ref: SampleRef, partner: SampleRef, epoch: int, seed: int | None
    ) -> "_Decoded":
        centre = np.full(len(Draw), 0.5, np.float32)
        draws = centre if seed is None else plan.draws(seed, epoch, ref.key, len(Draw))
        frame = int(draws[Draw.FRAME] * len(ref.pictures))
        if seed is None:
            rgb = self.evaluated(self._frame(ref, frame))
        else:
            rgb = self._picture(ref, frame, draws, flip=self.view.flip)
        other = None
        if self.other_frame and seed is not None:
            others = len(ref.pictures) - 1
            step = 1 + int(draws[Draw.OTHER_FRAME] * others) if others else 0
            other = self._picture(ref, (frame + step) % len(ref.pictures), draws, flip=False)
        waveform = None
        if self.audio is not None:
            waveform = self._sound(ref, draws, training=seed is not None)
            if seed is not None and _mixes(ref, partner, draws, self.augmentation):
                waveform = self._mixed(waveform, partner, draws)
        return _Decoded(ref, rgb, other, waveform, draws)

    def _frame(self, ref: SampleRef, frame: int) -> NDArray[np.uint8]:
        return simplejpeg.decode_jpeg(self.read(ref.shard, "picture", *ref.pictures[frame]), "RGB")

    def _picture(
        self, ref: SampleRef, frame: int, draws: NDArray[np.float32], *, flip: bool
    ) -> NDArray[np.uint8]:
        rgb = self._frame(ref, frame)
        rgb = crop(rgb, self.view.size_px, float(draws[Draw.CROP_X]), float(draws[Draw.CROP_Y]))
        return rgb[:, ::-1] if flip and draws[Draw.FLIP] < 0.5 else rgb

    def _sound(
        self, ref: SampleRef, draws: NDArray[np.float32], *, training: bool
    ) -> NDArray[np.int16]:
        assert self.audio is not None
        if ref.sound is None:
            return np.zeros(self.audio.samples, np.int16)
        moves = training and self.augmentation.shift
        at = float(draws[Draw.SHIFT]) if moves else 0.5
        return _cut(self.read(ref.shard, "sound", *ref.sound), self.audio, at, roll=moves)

    def _mixed(
        self, waveform: NDArray[np.int16], partner: SampleRef, draws: NDArray[np.float32]
    ) -> NDArray[np.int16]:
        low, high = self.augmentation.mix_snr_low_db, self.augmentation.mix_snr_high_db
        snr_db = low + (high - low) * float(draws[Draw.MIX_LEVEL])
        return mix(waveform, self._sound(partner, draws, training=True), snr_db)


@dataclasses.dataclass(frozen=True)
class _Decoded:
    ref: SampleRef
    rgb: NDArray[np.uint8]
    other: NDArray[np.uint8] | None
    waveform: NDArray[np.int16] | None
    draws: NDArray[np.float32]


def _mixes(
    ref: SampleRef,
    partner: SampleRef,
    draws: NDArray[np.float32],
    augmentation: AugmentationConfig,
) -> bool:
    """Whether a sample's sound is mixed with its partner's: both sound, and of two videos."""
    both_sound = ref.sound is not None and partner.sound is not None
    chosen = bool(draws[Draw.MIX] < augmentation.p_mix)
    return chosen and both_sound and ref.youtube_id != partner.youtube_id


def video_hash(youtube_id: str) -> int:
    """A 63-bit hash of a video id."""
    digest = hashlib.blake2b(youtube_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _batch(step: Step, jobs: Sequence["Future[_Decoded]"]) -> Batch:
    decoded = [job.result() for job in jobs]
    others = [d.other for d in decoded if d.other is not None]
    waveforms = [d.waveform for d in decoded if d.waveform is not None]
    return Batch(
        keys=tuple(d.ref.key for d in decoded),
        video=torch.tensor([video_hash(d.ref.youtube_id) for d in decoded]),
        position=torch.from_numpy(step.positions),
        picture=_stacked([d.rgb for d in decoded]),
        other_picture=_stacked(others) if others else None,
        waveform=torch.from_numpy(np.stack(waveforms)) if waveforms else None,
        has_sound=torch.tensor([d.ref.sound is not None for d in decoded]),
        draws=torch.from_numpy(np.stack([d.draws for d in decoded])),
        global_size=step.global_size,
    )


def _stacked(pictures: Sequence[NDArray[np.uint8]]) -> torch.Tensor:
    return torch.from_numpy(np.stack([rgb.transpose(2, 0, 1) for rgb in pictures]))


def crop(rgb: NDArray[np.uint8], size: int, x: float, y: float) -> NDArray[np.uint8]:
    """Resize the short side to ``size`` and take the square at (x, y) in [0, 1) of what is left."""
    height, width = rgb.shape[:2]
    if min(height, width) != size:
        scale = size / min(height, width)
        rgb = _resized(rgb, max(size, round(width * scale)), max(size, round(height * scale)))
        height, width = rgb.shape[:2]
    top = int(y * (height - size + 1))
    left = int(x * (width - size + 1))
    return rgb[top : top + size, left : left + size]


def _resized(rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    if rgb.shape[:2] == (height, width):
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))


def _cut(flac: bytes, audio: AudioConfig, at: float, *, roll: bool) -> NDArray[np.int16]:
    """A window of long sound, or short sound repeated (and, for training, rotated)."""
    decoded, rate = soundfile.read(io.BytesIO(flac), dtype="int16")
    sound: NDArray[np.int16] = decoded.astype(np.int16, copy=False)
    if rate != audio.sample_rate_hz:
        raise ValueError(
            f"the shards' sound has {rate} Hz, the recipe's model.audio.sample_rate_hz is "
            f"{audio.sample_rate_hz}: rebuild the shards or change the recipe"
        )
    needed = audio.samples
    if len(sound) >= needed:
        start = int(at * (len(sound) - needed + 1))
        return sound[start : start + needed]
    if roll:
        sound = np.roll(sound, int(at * len(sound)))
    return np.tile(sound, -(-needed // len(sound)))[:needed]
