"""Colouring the frames of a video by its sound; of files it knows nothing.

The sound that belongs to a moment is the window around it. Its semantics are found at a fixed hop
and interpolated; what the sound says, and whether there is any, is averaged over time. Between the
two, with and without sound, colours are blended, so that they drift where a sound begins or ends,
instead of jumping. At a scene cut all averages begin anew.
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
from aiaic.color import lightness
from aiaic.evaluation.metrics import ab_distance
from aiaic.inference.colorizer import Colorizer, as_sound, predict, small_picture
from aiaic.inference.temporal import SceneCuts, SteadyChroma, share_of_now
from aiaic.inference.upsampling import join_large, unit_rgb

_NEGLIGIBLE = 0.01  # share of the guided colours under which they are not computed


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """How colours are held steady."""

    hop_s: float = 0.25
    """Distance of the sound windows whose semantics are found."""
    sound_s: float = 0.5
    """Time constant with which the semantics of sound, and its presence, follow."""
    chroma_s: float = 0.4
    """Time constant with which colours follow where the picture stands still."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heard:
    """What is heard at a moment."""

    semantics: Float[Tensor, " d"]
    """Scene semantics, a unit vector; anything where nothing is heard."""
    presence: float
    """0: nothing; 1: a sound; between the two where one begins or ends."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorizedFrame:
    """A coloured frame."""

    rgb: NDArray[Any]
    """sRGB [h w 3], as large and deep as the input."""
    relevance: float | None
    """How well the sound fits, in [0, 1]; None where none took part."""
    is_cut: bool
    """Whether another scene begins here."""
    ab_change: float | None
    """Mean distance of chroma, Lab units at the size of prediction, from the frame before in the
    same scene; None where there is none."""


class SemanticsTrack:
    """Scene semantics of a sound over time."""

    def __init__(
        self,
        colorizer: Colorizer,
        window_at: Callable[[float], NDArray[np.float32] | None],
        hop_s: float = VideoConfig().hop_s,
    ) -> None:
        """Args:
        colorizer: whose audio encoder hears.
        window_at: mono sound [t] around a moment (s) at the model's rate and of its length, or
            shorter; None where there is none. Asked for moments that only move forward.
        hop_s: distance of these moments.
        """
        self._colorizer = colorizer
        self._window_at = window_at
        self._hop_s = hop_s
        self._heard: dict[int, Heard] = {}

    def at(self, time_s: float) -> Heard:
        """What is heard at a moment, interpolated; moments must not go back by a hop."""
        number = math.floor(time_s / self._hop_s)
        share = time_s / self._hop_s - number
        near = [self._at_hop(number), self._at_hop(number + 1)]
        weights = [(1 - share) * near[0].presence, share * near[1].presence]
        mixed = weights[0] * near[0].semantics + weights[1] * near[1].semantics
        return Heard(semantics=F.normalize(mixed, dim=0), presence=sum(weights))

    def _at_hop(self, number: int) -> Heard:
        if number not in self._heard:
            heard = self._hear(self._window_at(number * self._hop_s))
            kept = {n: h for n, h in self._heard.items() if n >= number - 1}
            self._heard = {**kept, number: heard}
        return self._heard[number]

    @torch.inference_mode()
    def _hear(self, waveform: NDArray[np.float32] | None) -> Heard:
        model = self._colorizer.model
        device = self._colorizer.device
        if waveform is None or not len(waveform):
            return Heard(semantics=torch.zeros(model.config.semantics, device=device), presence=0.0)
        window = fit_length(as_sound(waveform), model.config.audio.samples)
        semantics, present = model.hear(window[None].to(device))
        found = torch.where(present[:, None], semantics, 0.0)[0]
        return Heard(semantics=found, presence=float(present[0]))


class FrameColorizer:
    """Colours frames in the order of time, and remembers the scene so far."""

    def __init__(
        self,
        colorizer: Colorizer,
        *,
        pixel_aspect: float = 1.0,
        settings: VideoConfig = VideoConfig(),
    ) -> None:
        """Args:
        colorizer: by which single pictures are coloured.
        pixel_aspect: width of a pixel over its height.
        settings: how colours are held steady.
        """
        self._colorizer = colorizer
        self._pixel_aspect = pixel_aspect
        self._settings = settings
        self._cuts = SceneCuts()
        self._steady = SteadyChroma(settings.chroma_s)
        self._time_s: float | None = None
        self._ab: Tensor | None = None
        self._presence = 0.0
        # Weighted by presence: in silence it fades, but keeps its direction.
        self._semantics = torch.zeros(colorizer.model.config.semantics, device=colorizer.device)

    @torch.inference_mode()
    def colorize(
        self, rgb: NDArray[Any], time_s: float, heard: Heard | None = None
    ) -> ColorizedFrame:
        """Colour the next frame.

        Args:
            rgb: upright sRGB [h w 3], uint8 or uint16, of the same size each time.
            time_s: when it is shown.
            heard: the sound of that moment; None: there is none.
        """
        small = small_picture(rgb, self._colorizer.size_px, pixel_aspect=self._pixel_aspect)
        L = lightness(unit_rgb(small, self._colorizer.device))
        is_cut = self._cuts.is_cut(L)
        if is_cut:
            self._steady.reset()
        begins = is_cut or self._time_s is None
        elapsed_s = math.inf if begins or self._time_s is None else time_s - self._time_s
        self._listen(heard, elapsed_s)
        predicted, relevance = self._predict(small)
        ab = self._steady.follow(L, predicted, elapsed_s)
        before, self._ab, self._time_s = self._ab, ab, time_s
        return ColorizedFrame(
            rgb=join_large(rgb, ab),
            relevance=relevance,
            is_cut=is_cut,
            ab_change=None if begins or before is None else ab_distance(ab, before).item(),
        )

    def _listen(self, heard: Heard | None, elapsed_s: float) -> None:
        now = share_of_now(elapsed_s, self._settings.sound_s)
        presence = 0.0 if heard is None else heard.presence
        said = 0.0 if heard is None else presence * heard.semantics
        self._presence += now * (presence - self._presence)
        self._semantics = self._semantics + now * (said - self._semantics)

    def _predict(self, small: NDArray[np.uint8]) -> tuple[Tensor, float | None]:
        """Chroma, blended from that with and without sound, and the relevance."""
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
