"""Follows the plan: reads byte ranges through a callable, decodes in threads, makes batches."""

import collections
import dataclasses
import hashlib
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aiaic.audio import AudioConfig
from aiaic.loading import sampler
from aiaic.loading.augmentation import AugmentationConfig, mix
from aiaic.loading.batch import Batch, Draw
from aiaic.loading.decoding import crop, decode_picture, resize, sound_range, window
from aiaic.loading.sampler import SampleRef, SamplingConfig, Step

Read = Callable[[str, str, int, int], bytes]
"""(shard, ``"picture"`` or ``"sound"``, offset, size) -> bytes; called from several threads."""

Protocol = Literal["center_crop", "resize"]
"""How evaluation makes a picture square: the centre of it, or all of it with its sides squeezed."""

_AHEAD = 4  # batches that are read while one is trained on; so many are in memory beside it
_PER_JOB = 8  # samples: enough that a job's own cost, 30 us, does not count


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
    sample_rate_hz: int
    """Of their sounds."""
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
    pinned: bool = False
    """Whether batches lie in page-locked memory, which a GPU copies from while it computes."""

    def training(
        self,
        samples: Sequence[SampleRef],
        sampling: SamplingConfig,
        rank: int,
        world_size: int,
        start: int,
        parts: int = 1,
    ) -> Generator[Batch, None, None]:
        """One worker's batches from global step ``start`` on, without end.

        A step comes as ``parts`` micro-batches in order, see :func:`aiaic.loading.sampler.split`.
        Pictures are not mirrored yet: see :func:`aiaic.loading.batch.mirrored`.
        """
        steps = sampler.steps(samples, sampling, rank, world_size, start)
        micro_steps = (part for step in steps for part in sampler.split(step, parts))
        return self._follow(micro_steps, samples, sampling.seed)

    def evaluation(
        self, samples: Sequence[SampleRef], batch_size: int
    ) -> Generator[Batch, None, None]:
        """All samples in order, each once, as :meth:`evaluated` shows them, without any draw."""
        starts = range(0, len(samples), batch_size)
        indices = (np.arange(i, min(i + batch_size, len(samples))) for i in starts)
        steps = (
            Step(
                number=0,
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
            return resize(rgb, self.view.size_px, self.view.size_px)
        return crop(rgb, self.view.size_px, 0.5, 0.5)

    def _follow(
        self, steps: Iterable[Step], samples: Sequence[SampleRef], seed: int | None
    ) -> Generator[Batch, None, None]:
        memory = _Memory(pinned=self.pinned)
        with ThreadPoolExecutor(self.threads, thread_name_prefix="decode") as pool:
            ahead: collections.deque[_Making] = collections.deque()
            try:
                for step in steps:
                    if len(ahead) < _AHEAD:
                        ahead.append(self._begin(pool, memory, step, samples, seed))
                        continue
                    batch = ahead.popleft().finished()
                    ahead.append(self._begin(pool, memory, step, samples, seed))
                    yield batch
                    del batch  # or it would stay in memory while the next one is waited for
                while ahead:
                    yield ahead.popleft().finished()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _begin(
        self,
        pool: ThreadPoolExecutor,
        memory: "_Memory",
        step: Step,
        samples: Sequence[SampleRef],
        seed: int | None,
    ) -> "_Making":
        count, size = len(step.indices), self.view.size_px
        pair = self.other_frame and seed is not None
        making = _Making(
            step=step,
            seed=seed,
            refs=[samples[i] for i in step.indices.tolist()],
            partners=[samples[i] for i in step.partners.tolist()],
            picture=memory.of((count, size, size, 3), torch.uint8),
            other=memory.of((count, size, size, 3), torch.uint8) if pair else None,
            waveform=memory.of((count, self.audio.samples), torch.int16) if self.audio else None,
            draws=memory.of((count, len(Draw)), torch.float32),
            pinned=self.pinned,
        )
        for first in range(0, count, _PER_JOB):
            rows = range(first, min(first + _PER_JOB, count))
            making.jobs.append(pool.submit(self._fill, making, rows))
        return making

    def _fill(self, making: "_Making", rows: range) -> int:
        """Decode some rows of a batch; gives their part of the ledger."""
        keys = [making.refs[row].key for row in rows]
        entries = 0
        if making.seed is None:
            making.draws[rows.start : rows.stop] = 0.5
        else:
            drawn = sampler.draws(making.seed, making.step.epoch, keys, len(Draw))
            making.draws[rows.start : rows.stop] = drawn
            entries = sum(sampler.ledger_entry(making.step.number, key) for key in keys)
        for row in rows:
            draws: list[float] = making.draws[row].tolist()
            try:
                self._show(making, row, draws)
                if making.waveform is not None:
                    making.waveform[row] = self._heard(making, row, draws)
            except ValueError as error:
                ref = making.refs[row]
                raise ValueError(f"sample {ref.key} of shard {ref.shard}: {error}") from error
        return entries

    def _show(self, making: "_Making", row: int, draws: list[float]) -> None:
        """Decode a row's pictures; of what is decoded the rows of the crop alone are copied."""
        ref = making.refs[row]
        frame = int(draws[Draw.FRAME] * len(ref.pictures))
        if making.seed is None:
            making.picture[row] = self.evaluated(self._frame(ref, frame))
        else:
            making.picture[row] = self._cropped(ref, frame, draws)
        if making.other is not None:
            others = len(ref.pictures) - 1
            step = 1 + int(draws[Draw.OTHER_FRAME] * others) if others else 0
            frame = (frame + step) % len(ref.pictures)
            making.other[row] = self._cropped(ref, frame, draws)

    def _frame(self, ref: SampleRef, frame: int) -> NDArray[np.uint8]:
        return decode_picture(self.read(ref.shard, "picture", *ref.pictures[frame]))

    def _cropped(self, ref: SampleRef, frame: int, draws: list[float]) -> NDArray[np.uint8]:
        rgb = self._frame(ref, frame)
        return crop(rgb, self.view.size_px, draws[Draw.CROP_X], draws[Draw.CROP_Y])

    def _heard(self, making: "_Making", row: int, draws: list[float]) -> NDArray[np.int16]:
        ref, partner = making.refs[row], making.partners[row]
        training = making.seed is not None
        waveform = self._sound(ref, draws, training=training)
        if not training or not _mixes(ref, partner, draws, self.augmentation):
            return waveform
        low, high = self.augmentation.mix_snr_low_db, self.augmentation.mix_snr_high_db
        snr_db = low + (high - low) * draws[Draw.MIX_LEVEL]
        return mix(waveform, self._sound(partner, draws, training=True), snr_db)

    def _sound(self, ref: SampleRef, draws: list[float], *, training: bool) -> NDArray[np.int16]:
        assert self.audio is not None
        if ref.sound is None:
            return np.zeros(self.audio.samples, np.int16)
        moves = training and self.augmentation.shift
        at = draws[Draw.SHIFT] if moves else 0.5
        needed = self.audio.samples
        pcm = self.read(ref.shard, "sound", *sound_range(ref.sound, needed, at))
        return window(pcm, needed, at, roll=moves)


class _Memory:
    """Memory of batches, used again once nobody holds any view of it.

    Pages that come from the system are cleared and mapped at their first touch, one thread at a
    time: two threads that decode into new ones get in each other's way. Page-locked memory is
    PyTorch's to give again, which knows what a GPU still reads.
    """

    def __init__(self, *, pinned: bool) -> None:
        self._pinned = pinned
        self._spare: collections.defaultdict[Any, list[NDArray[Any]]] = collections.defaultdict(
            list
        )

    def of(self, shape: tuple[int, ...], dtype: torch.dtype) -> NDArray[Any]:
        """An array with anything in it."""
        if self._pinned:
            return torch.empty(shape, dtype=dtype, pin_memory=True).numpy()
        spare = self._spare[shape, dtype]
        array = spare.pop() if spare else torch.empty(shape, dtype=dtype).numpy()
        # Views of this keep it alive; those of ``array.view()`` would keep the array alone.
        lent = np.asarray(memoryview(cast("Any", array)))
        weakref.finalize(lent, spare.append, array).atexit = False
        return lent


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Making:
    """A batch in the making: memory for all of it, whose rows jobs fill."""

    step: Step
    seed: int | None
    """None: evaluation, without any draw."""
    refs: list[SampleRef]
    partners: list[SampleRef]
    picture: NDArray[np.uint8]
    """[b h w 3], as pictures are decoded."""
    other: NDArray[np.uint8] | None
    waveform: NDArray[np.int16] | None
    draws: NDArray[np.float32]
    pinned: bool
    jobs: list[Future[int]] = dataclasses.field(default_factory=list[Future[int]])

    def finished(self) -> Batch:
        entries = sum(job.result() for job in self.jobs)
        pinned = self.pinned
        return Batch(
            keys=tuple(ref.key for ref in self.refs),
            video=torch.tensor([video_hash(r.youtube_id) for r in self.refs], pin_memory=pinned),
            position=torch.tensor(self.step.positions, pin_memory=pinned),
            picture=_channels_last(self.picture),
            other_picture=None if self.other is None else _channels_last(self.other),
            waveform=None if self.waveform is None else torch.from_numpy(self.waveform),
            has_sound=torch.tensor([r.sound is not None for r in self.refs], pin_memory=pinned),
            draws=torch.from_numpy(self.draws),
            global_size=self.step.global_size,
            ledger=entries & sampler.LEDGER_MASK,
        )


def _channels_last(pictures: NDArray[np.uint8]) -> Tensor:
    """The same memory as [b 3 h w]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


def _mixes(
    ref: SampleRef,
    partner: SampleRef,
    draws: list[float],
    augmentation: AugmentationConfig,
) -> bool:
    """Whether a sample's sound is mixed with its partner's: both sound, and of two videos."""
    both_sound = ref.sound is not None and partner.sound is not None
    chosen = draws[Draw.MIX] < augmentation.p_mix
    return chosen and both_sound and ref.youtube_id != partner.youtube_id


def video_hash(youtube_id: str) -> int:
    """A 63-bit hash of a video id."""
    digest = hashlib.blake2b(youtube_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
