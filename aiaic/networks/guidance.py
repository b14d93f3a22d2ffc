"""Semantic guidance (AdaIN) and Dynamic Semantic Guidance (DSG), added to a colorizer from outside.

Zhao et al., arXiv 2401.13270: ``SG(x, c) = gamma(c) (x - mu(x)) / sigma(x) + beta(c)`` and a
learned relevance score. How the score is computed and blended is ours:
``DSG(x, c, present) = x + r (SG(x, c) - x)`` where a sound is present, ``x`` where it is not, with
``r = sigmoid(<q(pool(x)), k(c)> / tau + bias)`` and ``q`` and ``k`` of unit length.
"""

import dataclasses
import itertools
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from aiaic.config import AtLeast0, Finite, Positive, Width


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuidanceConfig:
    """How semantics guide the colorizer's features."""

    levels: tuple[int, ...] | Literal["all"] = (0, 1)
    """Which of the backbone's feature maps are guided (0 is the deepest), or ``all``."""
    mlp_width: Width = 128
    """Width of the hidden layers that turn semantics into gamma and beta."""
    mlp_depth: AtLeast0 = 1
    """Number of these hidden layers."""
    eps: Positive = 1e-5
    """Added to the variance of a feature map."""
    residual_gamma: bool = True
    """Predict gamma - 1 rather than gamma."""
    score_width: Width = 64
    """Size of the space in which features and semantics are compared."""
    shared_score: bool = False
    """Compute one relevance at the first guided level instead of one per level."""
    tau: Positive = 0.15
    """Temperature of the relevance score, which compares unit vectors."""
    bias: Finite = 1.0
    """Relevance logit of a pair about which nothing is known."""
    always_relevant: bool = False
    """Hold the relevance at 1 (plain AdaIN; missing sound still leaves features unchanged)."""

    def __post_init__(self) -> None:
        if self.levels == "all":
            return
        if len(set(self.levels)) < len(self.levels) or min(self.levels, default=0) < 0:
            levels = list(self.levels)
            raise ValueError(f"model.guidance.levels = {levels}: use different numbers from 0 on")


class AdaIN(nn.Module):
    """Adaptive instance normalization (Huang and Belongie 2017), per sample and channel."""

    def __init__(self, channels: int, semantics: int, guidance: GuidanceConfig) -> None:
        super().__init__()
        widths = [semantics, *[guidance.mlp_width] * guidance.mlp_depth]
        hidden: list[nn.Module] = []
        for width, following in itertools.pairwise(widths):
            hidden += [nn.Linear(width, following), nn.SiLU()]
        self.mlp = nn.Sequential(*hidden, nn.Linear(widths[-1], 2 * channels))
        self.eps = guidance.eps
        self.residual_gamma = guidance.residual_gamma

    def forward(
        self, x: Float[Tensor, "b c h w"], semantics: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b c h w"]:
        gamma, beta = self.mlp(semantics)[:, :, None, None].chunk(2, dim=1)
        if self.residual_gamma:
            gamma = gamma + 1
        variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)
        return gamma * (x - mean) * torch.rsqrt(variance + self.eps) + beta


class RelevanceScore(nn.Module):
    """How well semantics match a feature map, as a logit."""

    def __init__(self, channels: int, semantics: int, guidance: GuidanceConfig) -> None:
        super().__init__()
        width = guidance.score_width
        self.query = nn.Sequential(
            nn.LayerNorm(2 * channels), nn.Linear(2 * channels, width), nn.SiLU(),
            nn.Linear(width, width),
        )  # fmt: skip
        self.key = nn.Sequential(nn.Linear(semantics, width), nn.SiLU(), nn.Linear(width, width))
        self.tau = guidance.tau
        self.bias = nn.Parameter(torch.tensor(guidance.bias))

    def forward(
        self, x: Float[Tensor, "b c h w"], semantics: Float[Tensor, "b d"]
    ) -> Float[Tensor, " b"]:
        pooled = torch.cat((x.mean((2, 3)), x.amax((2, 3))), 1)
        query = F.normalize(self.query(pooled).float(), dim=1)
        key = F.normalize(self.key(semantics).float(), dim=1)
        return (query * key).sum(1) / self.tau + self.bias


class DynamicSemanticGuidance(nn.Module):
    """AdaIN at one level, blended by relevance; missing semantics leave features unchanged."""

    def __init__(
        self, channels: int, semantics: int, guidance: GuidanceConfig, *, scored: bool
    ) -> None:
        super().__init__()
        self.adain = AdaIN(channels, semantics, guidance)
        self.score = RelevanceScore(channels, semantics, guidance) if scored else None

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        semantics: Float[Tensor, "b d"],
        present: Bool[Tensor, " b"],
        logit: Float[Tensor, " b"] | None = None,
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, " b"]]:
        """Guide one feature map.

        Args:
            x: features.
            semantics: scene semantics; any values (even NaN) where not present.
            present: whether there are semantics.
            logit: a relevance logit computed elsewhere (a shared score or a constant).

        Returns:
            Features of the same shape, bit for bit ``x`` where not present, and the relevance logit
            (only meaningful where present).
        """
        # NaN times zero is NaN, also in gradients: placeholders are replaced before they are used.
        semantics = torch.where(present[:, None], semantics, torch.zeros_like(semantics))
        # Entries of unit vectors are small; at unit variance the following layers learn faster.
        semantics = semantics * semantics.shape[1] ** 0.5
        if logit is None:
            assert self.score is not None
            found: Tensor = self.score(x, semantics)
        else:
            found = logit
        guided = x + torch.sigmoid(found)[:, None, None, None] * (self.adain(x, semantics) - x)
        return torch.where(present[:, None, None, None], guided, x), found
