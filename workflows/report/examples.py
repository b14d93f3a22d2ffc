"""Pictures and sounds for the first screen of a report."""

import dataclasses
import io
from collections.abc import Sequence

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from aiaic.audio import to_float
from aiaic.color import join, rgb_to_lab
from aiaic.evaluation.conditions import Sounds, Truth, key_seed
from aiaic.inference import colorizer
from aiaic.loading.loader import Loader
from aiaic.loading.sampler import SampleRef
from aiaic.networks.model import Model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heard:
    """A picture coloured with a sound."""

    rgb: NDArray[np.uint8]
    relevance: float | None
    wav: bytes
    """The sound as the network heard it."""
    label: str
    """What the sound is of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One row: a picture, and what the network makes of it with and without sounds."""

    key: str
    label: str
    """What the picture shows."""
    grey: NDArray[np.uint8]
    without_sound: NDArray[np.uint8]
    own: Heard
    other: Heard | None
    """With the sound of a sibling class, or where there is no truth with one that does not fit."""
    truth: NDArray[np.uint8]


def choose(
    refs: Sequence[SampleRef], sounds: Sounds, truth: Truth | None, limit: int
) -> list[SampleRef]:
    """Clips to show: by a hash of their ids, not by hand; one of each class or label first."""
    names = {
        ref.key: ref.label if truth is None else truth.class_by_key[ref.key]
        for ref in refs
        if ref.key in sounds.fitting
    }
    hashed = sorted(
        (ref for ref in refs if ref.key in names), key=lambda ref: key_seed(0, f"show/{ref.key}")
    )
    seen: dict[str, int] = {}
    turns: list[tuple[int, int, SampleRef]] = []
    for place, ref in enumerate(hashed):
        turn = seen.get(names[ref.key], 0)
        seen[names[ref.key]] = turn + 1
        turns.append((turn, place, ref))
    chosen = [ref for _, _, ref in sorted(turns, key=lambda entry: entry[:2])[:limit]]
    appearance = truth.appearance_by_key if truth is not None else {}
    return sorted(chosen, key=lambda ref: (appearance.get(ref.key, ""), names[ref.key]))


def colour(
    chosen: Sequence[SampleRef],
    refs: Sequence[SampleRef],
    sounds: Sounds,
    *,
    model: Model,
    loader: Loader,
    truth: Truth | None,
) -> list[Example]:
    """Colour the chosen clips as ``aiaic colorize`` does, model on the CPU."""
    by_key = {ref.key: ref for ref in refs}
    partners = sounds.mismatched if truth is None else sounds.swapped
    needed = list(dict.fromkeys(
        key for ref in chosen for key in (ref.key, partners.get(ref.key)) if key is not None
    ))  # fmt: skip
    pictures: dict[str, NDArray[np.uint8]] = {}
    waveforms: dict[str, torch.Tensor] = {}
    for batch in loader.evaluation([by_key[key] for key in needed], batch_size=8):
        assert batch.waveform is not None
        for row, key in enumerate(batch.keys):
            pictures[key] = batch.picture[row].permute(1, 2, 0).contiguous().numpy()
            waveforms[key] = to_float(batch.waveform[row : row + 1])[0]
    names = {ref.key: ref.label for ref in refs} if truth is None else truth.class_by_key

    def heard(key: str, donor: str) -> Heard:
        waveform = waveforms[donor].numpy()
        result = colorizer.colorize(model, pictures[key], waveform, size_px=loader.view.size_px)
        wav = _wav(waveform, model.config.audio.sample_rate_hz)
        return Heard(rgb=result.rgb, relevance=result.relevance, wav=wav, label=names[donor])

    return [
        Example(
            key=ref.key,
            label=names[ref.key],
            grey=grey(pictures[ref.key]),
            without_sound=colorizer.colorize(
                model, pictures[ref.key], size_px=loader.view.size_px
            ).rgb,
            own=heard(ref.key, ref.key),
            other=heard(ref.key, partners[ref.key]) if ref.key in partners else None,
            truth=pictures[ref.key],
        )
        for ref in chosen
    ]


def grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture's lightness alone: all that the colorizer sees."""
    L = rgb_to_lab(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0]
    return join(L, torch.zeros(1, 2, *L.shape[2:]))[0].permute(1, 2, 0).numpy()


def _wav(waveform: NDArray[np.float32], rate_hz: int) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, waveform, rate_hz, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def grid(rows: Sequence[Example]) -> NDArray[np.uint8]:
    """One picture of all rows: grey, without sound, with its own, with the other, truth."""
    white = np.full_like(rows[0].grey, 255)
    lines = [
        [
            row.grey,
            row.without_sound,
            row.own.rgb,
            white if row.other is None else row.other.rgb,
            row.truth,
        ]
        for row in rows
    ]
    return np.vstack([np.hstack(line) for line in lines])
