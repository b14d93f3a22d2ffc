"""Finds pairs of hashes with a small Hamming distance."""

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

LIMIT = 16
"""Largest distance supported; unrelated hashes of 64 bits differ by about 32."""
_BLOCK = 1024


def near_pairs(hashes: NDArray[np.uint64], max_distance: int) -> NDArray[np.int64]:
    """Indices [n 2] of all pairs of hashes that differ in at most ``max_distance`` bits.

    If hashes are split into ``max_distance + 2`` parts, such a pair has two parts in common, so
    only hashes that do are compared (Manku et al. 2007). The hashes must be distinct; the first
    index of a pair is the smaller one.

    Raises:
        ValueError: ``max_distance`` is not 0 to 16.
    """
    if not 0 <= max_distance <= LIMIT:
        raise ValueError(f"max_distance is {max_distance}: give 0 to {LIMIT}")
    parts = max_distance + 2
    # Strided bits mix low and high frequencies, so that every part has entropy.
    masks = [sum(1 << bit for bit in range(part, 64, parts)) for part in range(parts)]
    found = [np.empty((0, 2), np.int64)]
    for one, other in itertools.combinations(masks, 2):
        common = hashes & np.uint64(one | other)
        order = np.argsort(common)
        starts = np.flatnonzero(np.diff(common[order], prepend=~common[order[:1]]))
        lengths = np.diff(starts, append=len(order))
        for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
            found.extend(_pairs_of_run(hashes, order[start : start + length], max_distance))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _pairs_of_run(
    hashes: NDArray[np.uint64], run: NDArray[np.int64], max_distance: int
) -> Iterator[NDArray[np.int64]]:
    values = hashes[run]
    for first in range(0, len(run), _BLOCK):
        rows = values[first : first + _BLOCK]
        distances = np.bitwise_count(rows[:, None] ^ values[None, first:])
        one, other = np.nonzero(distances <= max_distance)
        later = other > one
        if later.any():
            yield run[first + np.stack([one[later], other[later]], axis=1)]
