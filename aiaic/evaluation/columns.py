"""Figures of clips by name, as columns."""

from collections.abc import Collection, Mapping

import numpy as np

Rows = Mapping[str, Mapping[str, float]]
"""Key of a clip -> metric -> value."""


def column(rows: Rows, metric: str) -> list[float]:
    """The values of a metric, of the clips that have it."""
    return [row[metric] for row in rows.values() if metric in row]


def mean(rows: Rows, keys: Collection[str], metric: str) -> float:
    """The mean of a metric over certain clips, all of which have it."""
    return float(np.mean([rows[key][metric] for key in keys]))
