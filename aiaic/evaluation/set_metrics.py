"""FID and KID: how far the results of a condition are, as a set, from the true pictures."""

from collections.abc import Sequence
from typing import Any

from aiaic.evaluation.conditions import MATCHED, MISSING
from aiaic.evaluation.evaluator import Evaluation
from aiaic.evaluation.perceptual import FID_LEAST_CLIPS, fid, kid
from aiaic.evaluation.scorer import FEATURED
from aiaic.evaluation.scores import PICTURE

_KID_LEAST_CLIPS = 10


def add_set_distances(evaluation: Evaluation, result: dict[str, Any], *, seed: int) -> None:
    """Add FID and KID to the means of conditions, and to those over the same clips (``paired``).

    Each compares with the true pictures of the same clips. Without Inception's features, the reason
    is added to ``absent``.

    Args:
        evaluation: an evaluation.
        result: ``conditions``, ``paired`` and ``absent``; changed in place.
        seed: seed of the subsets of KID.
    """
    absent = result["absent"]
    if PICTURE not in evaluation.features:
        reason = "needs weights of FID's InceptionV3 (--inception-weights)"
        absent |= dict.fromkeys(("fid", "kid"), reason)
        return
    known: dict[tuple[str, frozenset[str]], dict[str, float]] = {}

    def distances(name: str, keys: Sequence[str]) -> dict[str, float]:
        clips = name, frozenset(keys)
        if clips not in known:
            truth = evaluation.features[PICTURE].of(keys)
            results = evaluation.features[name].of(keys)
            known[clips] = {"fid": fid(truth, results), "kid": kid(truth, results, seed=seed)}
        return known[clips]

    fewest = len(evaluation.features[PICTURE].keys)
    for name in FEATURED:
        keys = evaluation.features[name].keys if name in evaluation.features else ()
        if len(keys) >= _KID_LEAST_CLIPS:
            result["conditions"][name] |= distances(name, keys)
            fewest = min(fewest, len(keys))
    paired = evaluation.features[MATCHED].keys if MATCHED in evaluation.features else ()
    if len(paired) >= _KID_LEAST_CLIPS:
        for name in (MATCHED, MISSING):
            result["paired"][name] |= distances(name, paired)
    if fewest < FID_LEAST_CLIPS:
        result["notes"] = {
            "fid": f"with {fewest} pictures the covariance of {FID_LEAST_CLIPS} features is "
            "singular, so FID depends on the number of pictures: prefer KID"
        }
