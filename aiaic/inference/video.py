"""Colorizes the frames of a video by its sound; reads and writes no files.

A frame is guided by the window of sound around it. Semantics are computed at a fixed hop and
interpolated; semantics, and the presence of sound, are averaged over time. Where a sound starts or
ends, the predictions with and without sound are blended, so that colours change gradually. All
averages restart at a scene cut.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from aiaic.audio import fit_length
from aiaic.color import ab_distance, lightness, picture_to_rgb
from aiaic.inference.colorizer import Colorizer, as_sound, predict, small_picture
from aiaic.inference.temporal import ChromaSmoother, SceneCuts, ema_weight
from aiaic.inference.upsampling import upsample_and_join

_NEGLIGIBLE = 0.01  # a prediction whose weight in the blend is smaller is not computed


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Smoothing over time."""

    hop_s: float = 0.25
    """Hop of the sound windows whose semantics are computed."""
    sound_s: float = 0.5
    """Time constant of the average of the sound's semantics and presence."""
    chroma_s: float = 0.4
    """Time constant of the average of chroma in static regions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundCue:
    """The sound at one moment."""

    semantics: Float[Tensor, " d"]
    """Scene semantics, a unit vector; arbitrary if the presence is 0."""
    presence: float
    """0: no sound; 1: a sound; in between where a sound starts or ends."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorizedFrame:
    """A colorized frame."""

    rgb: NDArray[Any]
    """sRGB [h w 3], of the input's size and type."""
    relevance: float | None
    """How well the sound fits, in [0, 1]; None without a sound."""
    is_cut: bool
    """Whether another scene starts here."""
    ab_change: float | None
    """Mean chroma distance from the previous frame of the scene, in Lab units, at the size of
    prediction; None for the first frame of a scene."""


class SemanticsTrack:
    """Scene semantics of a sound over time."""

    def __init__(
        self,
        colorizer: Colorizer,
        window_at: Callable[[float], NDArray[np.float32] | None],
        hop_s: float = VideoConfig().hop_s,
    ) -> None:
        """Args:
        colorizer: its audio encoder is used.
        window_at: returns the mono sound [t] around a time (in seconds), at the model's rate and
            of at most its length; None without sound. It is called with increasing times.
        hop_s: distance of these times.
        """
        self._colorizer = colorizer
        self._window_at = window_at
        self._hop_s = hop_s
        self._cues: dict[int, SoundCue] = {}

    def at(self, time_s: float) -> SoundCue:
        """The sound at a time, interpolated; times must not go back by a hop or more."""
        number = math.floor(time_s / self._hop_s)
        share = time_s / self._hop_s - number
        near = [self._at_hop(number), self._at_hop(number + 1)]
        weights = [(1 - share) * near[0].presence, share * near[1].presence]
        mixed = weights[0] * near[0].semantics + weights[1] * near[1].semantics
        return SoundCue(semantics=F.normalize(mixed, dim=0), presence=sum(weights))

    def _at_hop(self, number: int) -> SoundCue:
        if number not in self._cues:
            cue = self._encode(self._window_at(number * self._hop_s))
            kept = {n: c for n, c in self._cues.items() if n >= number - 1}
            self._cues = {**kept, number: cue}
        return self._cues[number]

    @torch.inference_mode()
    def _encode(self, waveform: NDArray[np.float32] | None) -> SoundCue:
        model = self._colorizer.model
        device = self._colorizer.device
        if waveform is None or not len(waveform):
            nothing = torch.zeros(model.config.semantics, device=device)
            return SoundCue(semantics=nothing, presence=0.0)
        window = fit_length(as_sound(waveform), model.config.audio.samples)
        semantics, present = model.encode_sound(window[None].to(device))
        found = torch.where(present[:, None], semantics, 0.0)[0]
        return SoundCue(semantics=found, presence=float(present[0]))


class FrameColorizer:
    """Colorizes frames in order of time; holds the state of the current scene."""

    def __init__(
        self,
        colorizer: Colorizer,
        *,
        pixel_aspect: float = 1.0,
        settings: VideoConfig = VideoConfig(),
    ) -> None:
        """Args:
        colorizer: colorizer of single pictures.
        pixel_aspect: width of a pixel divided by its height.
        settings: smoothing over time.
        """
        self._colorizer = colorizer
        self._pixel_aspect = pixel_aspect
        self._settings = settings
        self._cuts = SceneCuts()
        self._smoother = ChromaSmoother(settings.chroma_s)
        self._time_s: float | None = None
        self._ab: Tensor | None = None
        self._presence = 0.0
        # Weighted by presence: in silence it fades, but keeps its direction.
        self._semantics = torch.zeros(colorizer.model.config.semantics, device=colorizer.device)

    @torch.inference_mode()
    def colorize(
        self, rgb: NDArray[Any], time_s: float, cue: SoundCue | None = None
    ) -> ColorizedFrame:
        """Colorize the next frame.

        Args:
            rgb: upright sRGB [h w 3], uint8 or uint16; all frames have the same size.
            time_s: presentation time.
            cue: the sound at that time; None: no sound.
        """
        small = small_picture(rgb, self._colorizer.size_px, pixel_aspect=self._pixel_aspect)
        L = lightness(picture_to_rgb(small, self._colorizer.device))
        is_cut = self._cuts.is_cut(L)
        if is_cut:
            self._smoother.reset()
        is_first = is_cut or self._time_s is None
        elapsed_s = math.inf if is_first or self._time_s is None else time_s - self._time_s
        self._update_sound(cue, elapsed_s)
        predicted, relevance = self._predict(small)
        ab = self._smoother.smooth(L, predicted, elapsed_s)
        before, self._ab, self._time_s = self._ab, ab, time_s
        return ColorizedFrame(
            rgb=upsample_and_join(rgb, ab),
            relevance=relevance,
            is_cut=is_cut,
            ab_change=None if is_first or before is None else ab_distance(ab, before).item(),
        )

    def _update_sound(self, cue: SoundCue | None, elapsed_s: float) -> None:
        weight = ema_weight(elapsed_s, self._settings.sound_s)
        presence = 0.0 if cue is None else cue.presence
        semantics = 0.0 if cue is None else presence * cue.semantics
        self._presence += weight * (presence - self._presence)
        self._semantics = self._semantics + weight * (semantics - self._semantics)

    def _predict(self, small: NDArray[np.uint8]) -> tuple[Tensor, float | None]:
        """Chroma, blended from the predictions with and without sound, and the relevance."""
        share = self._presence
        share = 0.0 if share < _NEGLIGIBLE else 1.0 if share > 1 - _NEGLIGIBLE else share
        guided = [True] * (share > 0) + [False] * (share < 1)
        present = torch.tensor(guided, device=self._semantics.device)
        semantics = F.normalize(self._semantics, dim=0).expand(len(present), -1)
        ab, logits = predict(self._colorizer.model, small, semantics, present)
        if share == 0:
            return ab, None
        relevance = logits[0].double().sigmoid().mean().item()
        return ab if share == 1 else share * ab[:1] + (1 - share) * ab[1:], relevance
