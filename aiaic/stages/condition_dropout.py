"""Condition dropout: training guides a sample by its own semantics, another video's, or none."""

import dataclasses

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from aiaic.distributed import gather
from aiaic.loading.batch import Batch, Draw

_FITS_COSINE = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assigned:
    """Semantics as assigned in training."""

    semantics: Float[Tensor, "b d"]
    present: Bool[Tensor, " b"]
    relevant: Bool[Tensor, " b"]
    """False if they are another video's."""
    partner_fits: Float[Tensor, " b"] | None
    """1 if the random partner's semantics nearly equal the sample's own (cosine over 0.9): its mean
    estimates how many mismatched pairs do match."""


def assign(
    semantics: Float[Tensor, "b d"],
    available: Bool[Tensor, " b"],
    batch: Batch,
    *,
    p_missing: float,
    p_mismatch: float,
) -> Assigned:
    """Drop semantics with probability ``p_missing``; use another video's with ``p_mismatch``.

    Partners come from the global batch, so they are the same on any number of workers. A sample
    whose partner is of the same video, or has no semantics, keeps its own. Gradients flow into
    partners as well: so encoders learn to separate scenes that colours do not (two scenes with one
    palette); otherwise a mismatch could not be recognized.
    """
    size = batch.global_size
    offset = 1 + (batch.draw(Draw.PARTNER) * (size - 1)).long()
    partner = (batch.position + offset) % size
    others = gather(semantics, batch)[partner]
    usable = gather(available, batch)[partner] & (
        gather(batch.video, batch)[partner] != batch.video
    )
    mismatched = usable & (batch.draw(Draw.MISMATCH) < p_mismatch)
    missing = batch.draw(Draw.MISSING) < p_missing
    return Assigned(
        semantics=torch.where(mismatched[:, None], others, semantics),
        present=(available | mismatched) & ~missing,
        relevant=~mismatched,
        partner_fits=(F.cosine_similarity(others, semantics).detach() > _FITS_COSINE).float(),
    )
