"""Chooses and colorizes the pictures and sounds on the first screen of a report."""

import dataclasses
import io
from collections.abc import Iterable, Sequence

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from aiaic.audio import to_float
from aiaic.color import join, rgb_to_lab
from aiaic.evaluation.conditions import GroundTruth, Sounds, key_seed
from aiaic.inference import Colorizer
from aiaic.loading.loader import Loader
from aiaic.loading.sampler import SampleRef
from aiaic.networks.model import Model


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundResult:
    """The result of a picture with one sound."""

    rgb: NDArray[np.uint8]
    relevance: float | None
    """None if the sound is inaudible."""
    wav: bytes
    """The sound that the network received, as a WAV file."""
    label: str
    """Class or label of the sound."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One row of the page: a picture and its results with and without sound."""

    key: str
    label: str
    """Class or label of the picture."""
    grey: NDArray[np.uint8]
    without_sound: NDArray[np.uint8]
    own: SoundResult
    other: SoundResult | None
    """Result with the sound of a sibling class or, without ground truth, with a mismatched one."""
    truth: NDArray[np.uint8]


def choose(
    refs: Sequence[SampleRef], sounds: Sounds, truth: GroundTruth | None, limit: int
) -> list[SampleRef]:
    """Choose clips by a hash of their keys; each class or label gets one before any gets two."""
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
    for position, ref in enumerate(hashed):
        turn = seen.get(names[ref.key], 0)
        seen[names[ref.key]] = turn + 1
        turns.append((turn, position, ref))
    chosen = [ref for _, _, ref in sorted(turns, key=lambda entry: entry[:2])[:limit]]
    appearance = truth.appearance_by_key if truth is not None else {}
    return sorted(chosen, key=lambda ref: (appearance.get(ref.key, ""), names[ref.key]))


def colorize(
    chosen: Sequence[SampleRef],
    refs: Sequence[SampleRef],
    sounds: Sounds,
    *,
    model: Model,
    loader: Loader,
    truth: GroundTruth | None,
) -> list[Example]:
    """Colorize the chosen clips in the same way as ``aiaic colorize``.

    Args:
        chosen: clips to show.
        refs: all evaluated clips.
        sounds: sound partners of all clips.
        model: the evaluated model, on the CPU.
        loader: loader of the evaluated view, with sound.
        truth: ground truth of a synthetic world.
    """
    partners = sounds.mismatched if truth is None else sounds.swapped
    by_key = {ref.key: ref for ref in refs}
    keys = dict.fromkeys(
        key for ref in chosen for key in (ref.key, partners.get(ref.key)) if key is not None
    )
    pictures, waveforms = _read(loader, [by_key[key] for key in keys])
    names = {ref.key: ref.label for ref in refs} if truth is None else truth.class_by_key
    colorizer = Colorizer(model, size_px=loader.view.size_px)

    def with_sound(key: str, donor: str) -> SoundResult:
        waveform = waveforms[donor]
        result = colorizer.colorize(pictures[key], waveform)
        wav = _wav(waveform, model.config.audio.sample_rate_hz)
        return SoundResult(rgb=result.rgb, relevance=result.relevance, wav=wav, label=names[donor])

    return [
        Example(
            key=ref.key,
            label=names[ref.key],
            grey=grey(pictures[ref.key]),
            without_sound=colorizer.colorize(pictures[ref.key]).rgb,
            own=with_sound(ref.key, ref.key),
            other=with_sound(ref.key, partners[ref.key]) if ref.key in partners else None,
            truth=pictures[ref.key],
        )
        for ref in chosen
    ]


def grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The lightness of a picture, which is all that the colorizer receives."""
    L = rgb_to_lab(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0]
    return join(L, torch.zeros(1, 2, *L.shape[2:]))[0].permute(1, 2, 0).numpy()


def grid(rows: Sequence[Example]) -> NDArray[np.uint8]:
    """All rows as one picture: grey, without sound, own sound, other sound, truth."""
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


def _read(
    loader: Loader, refs: Iterable[SampleRef]
) -> tuple[dict[str, NDArray[np.uint8]], dict[str, NDArray[np.float32]]]:
    """Pictures [h w 3] and sounds [t] of clips by key."""
    pictures: dict[str, NDArray[np.uint8]] = {}
    waveforms: dict[str, NDArray[np.float32]] = {}
    for batch in loader.evaluation(list(refs), batch_size=8):
        assert batch.waveform is not None
        for row, key in enumerate(batch.keys):
            pictures[key] = batch.picture[row].permute(1, 2, 0).contiguous().numpy()
            waveforms[key] = to_float(batch.waveform[row : row + 1])[0].numpy()
    return pictures, waveforms


def _wav(waveform: NDArray[np.float32], rate_hz: int) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, waveform, rate_hz, format="WAV", subtype="PCM_16")
    return stream.getvalue()
