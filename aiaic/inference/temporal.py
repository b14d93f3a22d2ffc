"""Detects scene cuts and smooths chroma over time, from small pictures of lightness.

All time constants are in seconds, so that results do not depend on the frame rate.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

_THUMBNAIL = 24, 32
_LEAST_CHANGE = 4.0
_FLAT = 2.0
_SAME_SCENE_CORRELATION = 0.6
_SAME_L = 4.0


class SceneCuts:
    """Detects cuts: lightness changes, and its layout does too.

    Consecutive frames of one scene correlate even in fast pans and under flashes or fades, which
    change the lightness but not its layout; frames of two scenes do not.
    """

    def __init__(self) -> None:
        self._before: Tensor | None = None

    def is_cut(self, L: Float[Tensor, "1 1 h w"]) -> bool:
        """Whether this frame starts another scene than the frame before; False for the first."""
        now = F.interpolate(L, size=_THUMBNAIL, mode="area")
        before, self._before = self._before, now
        if before is None or (now - before).abs().mean() < _LEAST_CHANGE:
            return False
        spreads = now.std().item(), before.std().item()
        if min(spreads) < _FLAT:  # a flat picture has no layout to compare
            return max(spreads) >= _FLAT
        covariance = ((now - now.mean()) * (before - before.mean())).mean().item()
        return covariance / (spreads[0] * spreads[1]) < _SAME_SCENE_CORRELATION


class ChromaSmoother:
    """Averages chroma over time in static regions.

    Each pixel's average is kept with the lightness it belongs to. Where the lightness changes,
    something has moved, and the average restarts: moving objects leave no trail of colour.
    """

    def __init__(self, time_constant_s: float) -> None:
        """Args:
        time_constant_s: time constant of the exponential average in static regions.
        """
        self._time_constant_s = time_constant_s
        self._ab: Tensor | None = None
        self._L: Tensor | None = None

    def reset(self) -> None:
        """Start a new scene."""
        self._ab = self._L = None

    def smooth(
        self, L: Float[Tensor, "1 1 h w"], ab: Float[Tensor, "1 2 h w"], elapsed_s: float
    ) -> Float[Tensor, "1 2 h w"]:
        """Smoothed chroma of the next frame.

        Args:
            L: lightness of the frame.
            ab: predicted chroma of the frame.
            elapsed_s: time since the previous frame.
        """
        blurred_L = F.avg_pool2d(F.pad(L, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        if self._ab is None or self._L is None or self._ab.shape != ab.shape:
            self._ab, self._L = ab, blurred_L
            return ab
        same = torch.exp(-((blurred_L - self._L) / _SAME_L).square())
        kept = same * (1 - ema_weight(elapsed_s, self._time_constant_s))
        self._ab = ab + kept * (self._ab - ab)
        self._L = blurred_L + kept * (self._L - blurred_L)
        return self._ab


def ema_weight(elapsed_s: float, time_constant_s: float) -> float:
    """Weight of the newest value in an exponential moving average over time."""
    return 1 - math.exp(-max(elapsed_s, 0.0) / time_constant_s)
