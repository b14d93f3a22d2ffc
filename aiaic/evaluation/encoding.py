"""Encodes the sound and the picture of every clip as scene semantics."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aiaic.audio import to_float
from aiaic.evaluation.conditions import IMAGE, MATCHED, NOISY_SNR_DB, Clip, key_seed
from aiaic.loading.batch import Batch
from aiaic.networks.model import Model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Networks:
    """The evaluated networks, in eval mode."""

    model: Model
    audio_trained: bool
    """Whether the audio encoder of the model is trained: after stage 1."""
    scene_trained: bool = True
    """Whether the scene encoder of the model is trained: unless stage 3 started from scratch."""
    stage1: Model | None = None
    """The stage-1 model of the same run, for the condition ``image``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Semantics:
    """Scene semantics of all clips, on the CPU, rows in the order of ``clips``."""

    clips: tuple[Clip, ...]
    sound: Mapping[str, Float[Tensor, "n d"]]
    """Semantics of each clip's own sound by condition: clean, and with noise."""
    audible: Mapping[str, Bool[Tensor, " n"]]
    """Whether that sound is over -60 dBFS, by condition."""
    scene: Float[Tensor, "n d"]
    """Semantics of each colour picture, by the evaluated model's (frozen) scene encoder."""
    image: Float[Tensor, "n d"] | None
    """Semantics of each colour picture, by the stage-1 model's scene encoder."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the clips."""
        return tuple(clip.key for clip in self.clips)


@torch.inference_mode()
def encode(
    networks: Networks, batches: Iterable[Batch], seed: int, device: torch.device
) -> Semantics:
    """Encode every sound and every picture of some clips once.

    Args:
        networks: the evaluated networks, on ``device``.
        batches: the clips.
        seed: seed of the noise.
        device: device to compute on.

    Raises:
        ValueError: there are no clips.
    """
    clips: list[Clip] = []
    parts: dict[str, list[Tensor]] = {}
    for batch in batches:
        clips += [
            Clip(key=key, video=int(video), has_sound=bool(has_sound))
            for key, video, has_sound in zip(batch.keys, batch.video, batch.has_sound, strict=True)
        ]
        for name, rows in _encode_batch(networks, batch.to(device), seed):
            parts.setdefault(name, []).append(rows.cpu())
    if not clips:
        raise ValueError("there are no clips to evaluate")
    whole = {name: torch.cat(rows) for name, rows in parts.items()}
    names = [name for name in (MATCHED, *NOISY_SNR_DB) if name in whole]
    return Semantics(
        clips=tuple(clips),
        sound={name: whole[name] for name in names},
        audible={name: whole[f"{name} audible"] for name in names},
        scene=whole["scene"],
        image=whole.get(IMAGE),
    )


def join(parts: Sequence[Semantics]) -> Semantics:
    """Concatenate the semantics of parts, in order.

    Raises:
        ValueError: there are no clips.
    """
    if not parts:
        raise ValueError("there are no clips to evaluate")
    images = [part.image for part in parts if part.image is not None]
    return Semantics(
        clips=tuple(clip for part in parts for clip in part.clips),
        sound={name: torch.cat([part.sound[name] for part in parts]) for name in parts[0].sound},
        audible={
            name: torch.cat([part.audible[name] for part in parts]) for name in parts[0].audible
        },
        scene=torch.cat([part.scene for part in parts]),
        image=torch.cat(images) if images else None,
    )


def add_noise(
    waveform: Float[Tensor, "b t"], snr_db: float, seeds: Sequence[int]
) -> Float[Tensor, "b t"]:
    """Add white noise at a signal-to-noise ratio; each sound has its own seed."""
    noise = torch.stack(
        [
            torch.randn(waveform.shape[1], generator=torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
    ).to(waveform)
    rms = waveform.square().mean(1, keepdim=True).sqrt()
    return waveform + noise * rms * 10 ** (-snr_db / 20)


def _encode_batch(networks: Networks, batch: Batch, seed: int) -> Iterator[tuple[str, Tensor]]:
    rgb = batch.picture.float() / 255
    yield "scene", networks.model.scene(rgb)
    if networks.stage1 is not None:
        yield IMAGE, networks.stage1.scene(rgb)
    if not networks.audio_trained:
        return
    assert batch.waveform is not None
    clean = to_float(batch.waveform)
    sounds = {MATCHED: clean}
    for name, snr_db in NOISY_SNR_DB.items():
        seeds = [key_seed(seed, f"{name}/{key}") for key in batch.keys]
        sounds[name] = add_noise(clean, snr_db, seeds)
    for name, waveform in sounds.items():
        semantics, audible = networks.model.encode_sound(waveform)
        yield name, semantics
        yield f"{name} audible", audible
