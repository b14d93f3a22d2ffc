"""What evaluated networks hear and see: scene semantics of every clip's sound and picture."""

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
    """What is evaluated."""

    model: Model
    hears: bool
    """Whether its audio encoder is trained (stages 2 and 3)."""
    sees: bool = True
    """Whether its scene encoder is trained (unless stage 3 began from scratch)."""
    stage1: Model | None = None
    """The stage-1 model, for the condition ``image``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Semantics:
    """Scene semantics of all clips, on the CPU, rows in the order of ``clips``."""

    clips: tuple[Clip, ...]
    sound: Mapping[str, Float[Tensor, "n d"]]
    """Of each clip's own sound, clean and with noise."""
    audible: Mapping[str, Bool[Tensor, " n"]]
    """Whether that sound lies over -60 dBFS."""
    scene: Float[Tensor, "n d"]
    """Of each colour picture, by the evaluated model's own (frozen) scene encoder."""
    image: Float[Tensor, "n d"] | None
    """Of each colour picture, by the stage-1 model."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the clips."""
        return tuple(clip.key for clip in self.clips)


@torch.inference_mode()
def encode(
    networks: Networks, batches: Iterable[Batch], seed: int, device: torch.device
) -> Semantics:
    """Encode every sound and every picture of some clips once.

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
    heard = [name for name in (MATCHED, *NOISY_SNR_DB) if name in whole]
    return Semantics(
        clips=tuple(clips),
        sound={name: whole[name] for name in heard},
        audible={name: whole[f"{name} audible"] for name in heard},
        scene=whole["scene"],
        image=whole.get(IMAGE),
    )


def join(parts: Sequence[Semantics]) -> Semantics:
    """The semantics of all clips from those of some at a time, in the order of the parts.

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
    """White noise at a signal-to-noise ratio, a generator of its own for each sound."""
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
    if not networks.hears:
        return
    assert batch.waveform is not None
    clean = to_float(batch.waveform)
    sounds = {MATCHED: clean}
    for name, snr_db in NOISY_SNR_DB.items():
        seeds = [key_seed(seed, f"{name}/{key}") for key in batch.keys]
        sounds[name] = add_noise(clean, snr_db, seeds)
    for name, waveform in sounds.items():
        semantics, audible = networks.model.hear(waveform)
        yield name, semantics
        yield f"{name} audible", audible
