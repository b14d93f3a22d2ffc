"""Linear probes for leaks: of the class into lightness, and of colours into scene semantics."""

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
"""Blocks per side in which lightness is averaged."""
_REGIONS = 4
"""Blocks per side in which the statistics of edges and grain are averaged."""
_ALPHAS = np.logspace(-2, 5, 15)
"""Regularization strengths of ridge regression to choose from."""
_CLIPS_PER_FOLD = 4


def sibling_probe_accuracy(
    L: Float[Array, "n h w"],
    appearance: Array,
    class_: Array,
    folds: int = 5,
    seed: int = 0,
) -> float:
    """Cross-validated accuracy of telling sibling classes apart by lightness alone.

    Fits a regularized logistic regression on block means and on statistics of gradients and grain,
    for each appearance, and averages over appearances. With k equally frequent siblings, chance is
    1 / k.

    Args:
        L: decoded lightness in [0, 100].
        appearance: [n], appearance of each picture.
        class_: [n], class of each picture.
        folds: number of folds of the cross-validation.
        seed: seed of the folds.

    Raises:
        ValueError: an appearance has only one class, or a class has fewer pictures than folds.
    """
    appearance, class_ = np.asarray(appearance), np.asarray(class_)
    accuracies: list[float] = []
    for name in np.unique(appearance):
        chosen = np.flatnonzero(appearance == name)
        siblings, frequencies = np.unique(class_[chosen], return_counts=True)
        if siblings.size < 2 or frequencies.min() < folds:
            raise ValueError(
                f"the probe needs at least two classes of appearance '{name}' with at least "
                f"{folds} pictures each, but found "
                + (", ".join(f"{n} of '{c}'" for c, n in zip(siblings, frequencies, strict=True)))
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
        semantics: scene semantics of each picture.
        own_chroma: mean chroma of each picture minus the mean of its class or label.
        video: [n], number of each picture's video; folds never split a video.
        folds: number of folds of the cross-validation.

    Returns:
        At most 1; 0 if semantics predict nothing, and negative if the probe overfits. ``a`` and
        ``b`` are weighted by their variance.

    Raises:
        ValueError: there are too few pictures or videos, or their chroma does not vary.
    """
    least = folds * _CLIPS_PER_FOLD
    if len(semantics) < least or len(np.unique(video)) < folds:
        raise ValueError(
            f"the probe needs at least {least} pictures of {folds} videos, "
            f"but there are {len(semantics)} of {len(np.unique(video))}"
        )
    if not np.ptp(own_chroma, axis=0).any():
        raise ValueError("the mean chroma of pictures does not vary within a class or label")
    probe = make_pipeline(StandardScaler(), RidgeCV(_ALPHAS))
    split = GroupKFold(folds)
    predicted = cross_val_predict(probe, semantics, own_chroma, groups=video, cv=split)
    return float(r2_score(own_chroma, predicted, multioutput="variance_weighted"))


def grey_features(L: Float[Array, "n h w"]) -> Float[Array, "n features"]:
    """Features of the lightness probe.

    Means of small blocks; and by larger block the contrast, the strength of horizontal and vertical
    gradients and of second differences (grain, codec noise), and the correlation of grain with
    lightness (edges shifted by a hue); and quantiles of the whole picture.
    """
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
    """Mean of the four neighbours of each inner pixel."""
    return (L[:, :-2, 1:-1] + L[:, 2:, 1:-1] + L[:, 1:-1, :-2] + L[:, 1:-1, 2:]) / 4


def _block_means(maps: Array, blocks: int) -> Array:
    """[n h w] -> [n blocks*blocks]; a remainder at the right and the bottom is left out."""
    n, h, w = maps.shape
    by, bx = h // blocks, w // blocks
    whole: Any = maps[:, : by * blocks, : bx * blocks]
    return whole.reshape(n, blocks, by, blocks, bx).mean(axis=(2, 4)).reshape(n, -1)
