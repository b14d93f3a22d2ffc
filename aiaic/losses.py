"""Loss terms per sample, one function each."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F


def colour(
    predicted: Float[Tensor, "b 2 h w"], truth: Float[Tensor, "b 2 h w"], beta: float
) -> Float[Tensor, " b"]:
    """Huber loss on ``ab / 110``, divided by its threshold if that is below 1.

    With ``beta`` of at least the range of ab (2) it is half the squared error, whose optimum is the
    mean colour; a small ``beta`` approaches the absolute error and gives vivid colours.
    """
    loss = F.huber_loss(predicted, truth, delta=beta, reduction="none") / min(beta, 1.0)
    return loss.mean((1, 2, 3))


def relevance(
    logits: Float[Tensor, "b levels"],
    relevant: Bool[Tensor, " b"],
    present: Bool[Tensor, " b"],
    smoothing: float,
) -> Float[Tensor, " b"]:
    """Binary cross-entropy of the relevance score; zero where no semantics are present.

    Labels are smoothed, since some random partners do match.
    """
    target = relevant.float() * (1 - 2 * smoothing) + smoothing
    target = target[:, None].expand_as(logits)
    loss = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none").mean(1)
    return torch.where(present, loss, torch.zeros_like(loss))


def distillation(
    student: Float[Tensor, "b d"], teacher: Float[Tensor, "b d"]
) -> Float[Tensor, " b"]:
    """Cosine distance between unit vectors."""
    return 1 - (student * teacher).sum(1)


def info_nce(
    audio: Float[Tensor, "n d"],
    scene: Float[Tensor, "n d"],
    video: Int64[Tensor, " n"],
    own: Int64[Tensor, " b"],
    scale: Float[Tensor, ""],
) -> Float[Tensor, " b"]:
    """Symmetric InfoNCE (van den Oord et al. 2018) of this worker's samples among the global batch.

    Args:
        audio: unit vectors of all sounds of the global batch.
        scene: unit vectors of all pictures of the global batch.
        video: video of each; clips of one video are not used as negatives of each other.
        own: positions of this worker's samples.
        scale: inverse temperature.
    """
    same_video = video[own, None] == video[None]
    same_video[torch.arange(len(own), device=own.device), own] = False

    def one_way(queries: Tensor, keys: Tensor) -> Tensor:
        logits = scale * queries[own] @ keys.T
        return F.cross_entropy(logits.masked_fill(same_video, -torch.inf), own, reduction="none")

    return (one_way(audio, scene) + one_way(scene, audio)) / 2
