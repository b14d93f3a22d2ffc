"""What sound is worth for clips of each label."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from aiaic.evaluation.columns import Rows, column, mean
from aiaic.evaluation.conditions import MATCHED, MISSING


def by_label(scores: Mapping[str, Rows], labels: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """PSNR with the own sound and without, over the ``n`` clips of each label that have both.

    Labels are sorted; those without a clip with a fitting sound are absent.
    """
    matched, missing = scores.get(MATCHED, {}), scores.get(MISSING, {})
    keys_by_label: dict[str, list[str]] = {}
    for key in matched:
        if labels[key]:
            keys_by_label.setdefault(labels[key], []).append(key)
    found: dict[str, dict[str, Any]] = {}
    for label, keys in sorted(keys_by_label.items()):
        own, none = mean(matched, keys, "psnr"), mean(missing, keys, "psnr")
        found[label] = {
            "n": len(keys),
            "psnr_matched": own,
            "psnr_missing": none,
            "guidance_gain_db": own - none,
        }
        relevance = column({key: matched[key] for key in keys}, "relevance")
        if relevance:
            found[label]["relevance_matched"] = float(np.mean(relevance))
    return found
