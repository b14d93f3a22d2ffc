"""Which semantics a sample is guided by in training: its own, another video's, or none."""

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
    """Semantics as training assigns them."""

    semantics: Float[Tensor, "b d"]
    present: Bool[Tensor, " b"]
    relevant: Bool[Tensor, " b"]
    """False where they are another video's."""
    partner_fits: Float[Tensor, " b"] | None
    """1 where the random partner's semantics nearly equal the sample's own (cosine over 0.9): an
    estimate of how many mismatches are none."""


def assign(
    semantics: Float[Tensor, "b d"],
    available: Bool[Tensor, " b"],
    batch: Batch,
    *,
    p_missing: float,
    p_mismatch: float,
) -> Assigned:
    """Drop semantics with ``p_missing``; take another video's with ``p_mismatch``.

    Partners come from the global batch, so the draw is the same on any number of workers. A partner
    of the same video, or without semantics, is none: the sample keeps its own. Gradients flow into
    partners too: that is how encoders learn to tell apart what the colours alone need not (two
    scenes of one palette), without which a misfit cannot be seen.
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
