"""Metrics of 8-bit sRGB pictures, one value per picture, and of scores and embeddings.

The tests compare each with an independent implementation (scikit-image, torchmetrics or NumPy).
"""

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import ArrayLike
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from aiaic.color import AB_SCALE

MAX_PSNR_DB = 100.0
"""PSNR reported for equal pictures, where it is infinite."""
SSIM_WINDOW_PX = 11
"""Side of SSIM's Gaussian window; SSIM is undefined for smaller pictures."""

_CHUNK_ROWS = 1024


def psnr(
    prediction: UInt8[Tensor, "b 3 h w"], truth: UInt8[Tensor, "b 3 h w"]
) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio in dB over all channels, at most :data:`MAX_PSNR_DB`."""
    mse = (prediction.float() - truth.float()).square().mean((1, 2, 3))
    return (10 * torch.log10(255.0**2 / mse)).clamp_max(MAX_PSNR_DB)


def ssim(
    prediction: UInt8[Tensor, "b 3 h w"], truth: UInt8[Tensor, "b 3 h w"]
) -> Float[Tensor, " b"]:
    """Structural similarity (Wang et al. 2004), the mean over channels and whole windows.

    Gaussian window of 11 px and sigma 1.5, population covariance, dynamic range 255.

    Raises:
        ValueError: the pictures are smaller than the window.
    """
    if min(prediction.shape[-2:]) < SSIM_WINDOW_PX:
        raise ValueError(f"SSIM needs pictures of at least {SSIM_WINDOW_PX} px")
    _, windows = structural_similarity_index_measure(
        prediction.float(),
        truth.float(),
        data_range=255.0,
        reduction="none",
        return_full_image=True,
    )
    edge = SSIM_WINDOW_PX // 2  # the library's own mean includes windows that cross the edge
    return windows[..., edge:-edge, edge:-edge].mean((1, 2, 3))


def colorfulness(rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """Colourfulness M3 of Hasler and Süsstrunk (2003), from signed opponent channels."""
    return _colorfulness(*_opponent(rgb))


def colorfulness_abs(rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, " b"]:
    """The variant reported by DDColor and CT2: from absolute opponent channels."""
    red_green, yellow_blue = _opponent(rgb)
    return _colorfulness(red_green.abs(), yellow_blue.abs())


def mse_ab(
    prediction: Float[Tensor, "b 2 h w"], truth: Float[Tensor, "b 2 h w"]
) -> Float[Tensor, " b"]:
    """Mean squared error of normalized chroma (``ab / 110``), given ``ab`` in Lab units."""
    return ((prediction - truth) / AB_SCALE).square().mean((1, 2, 3))


def auc(fitting: ArrayLike, unfitting: ArrayLike) -> float:
    """Area under the ROC curve: 1 if every fitting score exceeds every unfitting one.

    Raises:
        ValueError: there are no scores of one kind.
    """
    scores = [np.ravel(np.asarray(part, np.float64)) for part in (fitting, unfitting)]
    if not all(len(part) for part in scores):
        raise ValueError("the AUC needs both fitting and unfitting scores")
    labels = np.repeat([1, 0], [len(part) for part in scores])
    return float(roc_auc_score(labels, np.concatenate(scores)))


def retrieval_ranks(
    queries: Float[Tensor, "n d"], items: Float[Tensor, "n d"], groups: Int64[Tensor, " n"]
) -> Int64[Tensor, " n"]:
    """Rank (1 = first) of the best-ranked fitting item for each query, by cosine similarity.

    Ties count against the query, so that equal embeddings retrieve nothing.

    Args:
        queries: unit vectors.
        items: unit vectors.
        groups: item j fits query i if ``groups[i] == groups[j]``.
    """
    ranks: list[Tensor] = []
    for start in range(0, len(queries), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        similarity = queries[rows] @ items.T
        fits = groups[rows, None] == groups[None, :]
        best = similarity.masked_fill(~fits, -torch.inf).amax(1, keepdim=True)
        ranks.append(1 + (~(similarity < best) & ~fits).sum(1))  # "not less", so NaN ranks last
    return torch.cat(ranks)


def _opponent(rgb: UInt8[Tensor, "b 3 h w"]) -> tuple[Tensor, Tensor]:
    red, green, blue = rgb.float().unbind(1)
    return red - green, (red + green) / 2 - blue


def _colorfulness(red_green: Tensor, yellow_blue: Tensor) -> Float[Tensor, " b"]:
    variance = [channel.var((1, 2), correction=0) for channel in (red_green, yellow_blue)]
    mean = [channel.mean((1, 2)) for channel in (red_green, yellow_blue)]
    return (variance[0] + variance[1]).sqrt() + 0.3 * (mean[0] ** 2 + mean[1] ** 2).sqrt()
