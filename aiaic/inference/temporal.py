"""What is steady from one frame of a video to the next: scenes, and the colours in them.

All of it looks at small pictures of lightness, and all time constants are in seconds, so that a
video of 60 frames per second is treated as one of 24.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

_THUMBNAIL = 24, 32
_LEAST_CHANGE = 4.0
_FLAT = 2.0
_ALIKE = 0.6
_SAME_L = 4.0


class SceneCuts:
    """Tells a cut from motion: the light differs, and so does where it lies.

    Two frames of one scene correlate even in fast pans and under flashes or fades, whose light
    changes while its layout stays; two scenes do not.
    """

    def __init__(self) -> None:
        self._before: Tensor | None = None

    def is_cut(self, L: Float[Tensor, "1 1 h w"]) -> bool:
        """Whether this frame begins another scene than the frame before; the first one does not."""
        now = F.interpolate(L, size=_THUMBNAIL, mode="area")
        before, self._before = self._before, now
        if before is None or (now - before).abs().mean() < _LEAST_CHANGE:
            return False
        spreads = now.std().item(), before.std().item()
        if min(spreads) < _FLAT:  # a flat picture has no layout that could be compared
            return max(spreads) >= _FLAT
        covariance = ((now - now.mean()) * (before - before.mean())).mean().item()
        return covariance / (spreads[0] * spreads[1]) < _ALIKE


class SteadyChroma:
    """Chroma averaged over time wherever the picture stays the same.

    A pixel's colours so far are kept together with the lightness that they belong to. Where the
    lightness of now is another, something has moved, and they are forgotten: nothing leaves a
    trail.
    """

    def __init__(self, time_constant_s: float) -> None:
        """Args:
        time_constant_s: how long colours take to follow in a still picture.
        """
        self._time_constant_s = time_constant_s
        self._ab: Tensor | None = None
        self._L: Tensor | None = None

    def reset(self) -> None:
        """Forget everything: a scene begins."""
        self._ab = self._L = None

    def follow(
        self, L: Float[Tensor, "1 1 h w"], ab: Float[Tensor, "1 2 h w"], elapsed_s: float
    ) -> Float[Tensor, "1 2 h w"]:
        """Steady chroma of a frame.

        Args:
            L: lightness of the frame.
            ab: its chroma as predicted.
            elapsed_s: time since the frame before.
        """
        smooth_L = F.avg_pool2d(F.pad(L, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        if self._ab is None or self._L is None or self._ab.shape != ab.shape:
            self._ab, self._L = ab, smooth_L
            return ab
        same = torch.exp(-((smooth_L - self._L) / _SAME_L).square())
        kept = same * (1 - share_of_now(elapsed_s, self._time_constant_s))
        self._ab = ab + kept * (self._ab - ab)
        self._L = smooth_L + kept * (self._L - smooth_L)
        return self._ab


def share_of_now(elapsed_s: float, time_constant_s: float) -> float:
    """Weight of the newest value in an exponential average over time."""
    return 1 - math.exp(-max(elapsed_s, 0.0) / time_constant_s)
