"""What gives away what it should not: lightness the class, scene semantics a picture's own colours.

Both are asked by linear probes.
"""

from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

_BLOCKS = 12
"""Side of the grid of block means."""
_REGIONS = 4
"""Side of the grid in which edges and grain are summed up."""
_ALPHAS = np.logspace(-2, 5, 15)
"""Strengths of ridge regression to choose from."""
_CLIPS_PER_FOLD = 4


def sibling_probe_accuracy(
    L: Float[Array, "n h w"],
    appearance: Array,
    class_: Array,
    folds: int = 5,
    seed: int = 0,
) -> float:
    """Cross-validated share of pictures whose class is told from ``L`` among its siblings'.

    ``L`` in [0, 100] as decoded, ``appearance`` [n] and ``class_`` [n] in any type that NumPy
    compares. The mean over appearances of a regularized logistic regression on block means and on
    the statistics of gradients and grain. With k equally frequent siblings chance is 1 / k.
    ValueError where a class has too few pictures to be split into ``folds``.
    """
    appearance, class_ = np.asarray(appearance), np.asarray(class_)
    accuracies: list[float] = []
    for name in np.unique(appearance):
        chosen = np.flatnonzero(appearance == name)
        siblings, frequencies = np.unique(class_[chosen], return_counts=True)
        if siblings.size < 2 or frequencies.min() < folds:
            raise ValueError(
                f"the probe needs two or more classes of appearance {name!r} with at least "
                f"{folds} pictures each, got {dict(zip(siblings, frequencies, strict=True))}"
            )
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=500))
        split = StratifiedKFold(folds, shuffle=True, random_state=seed)
        scores = cross_val_score(probe, grey_features(L[chosen]), class_[chosen], cv=split)
        accuracies.append(float(scores.mean()))
    return float(np.mean(accuracies))


def colour_leak_r2(
    semantics: Float[Array, "n d"],
    own_chroma: Float[Array, "n 2"],
    video: Array,
    folds: int = 5,
) -> float:
    """Cross-validated R² of a ridge regression from scene semantics to a picture's own chroma.

    Args:
        semantics: of the pictures.
        own_chroma: what the mean chroma of each picture has over what its kind tells.
        video: a number for each picture's video; videos are never split.
        folds: of the cross-validation.

    Returns:
        At most 1; 0 where semantics tell nothing, and under 0 where the probe found what was
        chance. Both chromas count by their variance.

    Raises:
        ValueError: there are too few pictures or videos, or their chroma is all the same.
    """
    least = folds * _CLIPS_PER_FOLD
    if len(semantics) < least or len(np.unique(video)) < folds:
        raise ValueError(
            f"the probe needs {least} pictures of {folds} videos or more, "
            f"got {len(semantics)} of {len(np.unique(video))}"
        )
    if not np.ptp(own_chroma, axis=0).any():
        raise ValueError("all pictures of a kind have the same mean chroma: there is none to leak")
    probe = make_pipeline(StandardScaler(), RidgeCV(_ALPHAS))
    split = GroupKFold(folds)
    predicted = cross_val_predict(probe, semantics, own_chroma, groups=video, cv=split)
    return float(r2_score(own_chroma, predicted, multioutput="variance_weighted"))


def grey_features(L: Float[Array, "n h w"]) -> Float[Array, "n features"]:
    """What the probe sees of each picture: block means, and by region the contrast, the strength
    of gradients across and down and of their second differences (grain, codec noise), and their
    correlation with lightness (edges that a hue has shifted)."""
    L = np.asarray(L, np.float32)
    means = _block_means(L, _BLOCKS)
    across, down = np.diff(L, axis=2)[:, :-1], np.diff(L, axis=1)[:, :, :-1]
    curve_x, curve_y = np.diff(L, 2, axis=2)[:, 1:-1], np.diff(L, 2, axis=1)[:, :, 1:-1]
    here = L[:, 1:-1, 1:-1]
    fine = here - _neighbours(L)
    maps = (
        np.abs(across),
        np.abs(down),
        np.abs(curve_x),
        np.abs(curve_y),
        np.abs(fine),
        fine,
        fine * here,
        fine**3,
        np.abs(fine) < 0.25,
    )
    strengths = [_block_means(m.astype(np.float32), _REGIONS) for m in maps]
    contrast = np.sqrt(np.maximum(_block_means(L**2, _REGIONS) - _block_means(L, _REGIONS) ** 2, 0))
    quantiles = np.quantile(L.reshape(len(L), -1), np.linspace(0, 1, 11), axis=1).T
    return np.concatenate([means, contrast, *strengths, quantiles], axis=1)


def _neighbours(L: Array) -> Array:
    """Mean of the four pixels around each inner one."""
    return (L[:, :-2, 1:-1] + L[:, 2:, 1:-1] + L[:, 1:-1, :-2] + L[:, 1:-1, 2:]) / 4


def _block_means(maps: Array, blocks: int) -> Array:
    """[n h w] -> [n blocks*blocks]; what is left over at the right and below is not looked at."""
    n, h, w = maps.shape
    by, bx = h // blocks, w // blocks
    whole: Any = maps[:, : by * blocks, : bx * blocks]
    return whole.reshape(n, blocks, by, blocks, bx).mean(axis=(2, 4)).reshape(n, -1)
