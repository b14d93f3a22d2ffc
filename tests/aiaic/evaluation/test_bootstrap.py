"""Confidence intervals against theory, brute force and cases known by construction."""

import numpy as np
import pytest

from aiaic.evaluation import metrics
from aiaic.evaluation.bootstrap import RESAMPLES, _Auc, intervals

N = 600


def scores(generator, videos=N):
    keys = [f"{number:04d}" for number in range(N)]
    gain = 3 + generator.standard_normal(N)
    base = 20 + generator.standard_normal(N)
    error = 0.01 + 0.002 * generator.random(N)

    def rows(psnr, mse_ab, relevance=None):
        found = {k: {"psnr": p, "mse_ab": m} for k, p, m in zip(keys, psnr, mse_ab, strict=True)}
        if relevance is not None:
            for key, value in zip(keys, relevance, strict=True):
                found[key]["relevance"] = value
        return found

    fitting, other = (generator.integers(low, low + 8, N) / 12 for low in (3, 0))
    return {
        "matched": rows(base + gain, error / 4, fitting),
        "missing": rows(base, error),
        "mismatched": rows(base - 1, error, other),
        "swapped": rows(base, error / 2),
        "without_sound": rows(base, error),
        "with_sound": rows(base + 5, error / 10),
        "swapped_without_sound": rows(base, error),
    }, {key: number % videos for number, key in enumerate(keys)}


def known(scores_, video, **options):
    conditions = ("matched", "missing", "mismatched", "swapped")
    return intervals(scores_, conditions, video, {}, **options)


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values, video = scores(np.random.default_rng(0))
    found = known(values, video)
    for name in ("matched", "missing"):
        psnr = np.array([row["psnr"] for row in values[name].values()])
        half = 1.96 * psnr.std() / np.sqrt(N)
        interval = found["psnr"][name]
        assert interval["low"] == pytest.approx(psnr.mean() - half, abs=0.15 * half)
        assert interval["high"] == pytest.approx(psnr.mean() + half, abs=0.15 * half)
    gain = found["guidance_gain_db"]
    # The two results of a clip go together: the gain is known better than either of them.
    assert gain["high"] - gain["low"] == pytest.approx(2 * 1.96 / np.sqrt(N), rel=0.15)
    assert found["harm_db"]["low"] == pytest.approx(1)
    assert (found["videos"], found["resamples"], found["level"]) == (N, RESAMPLES, 0.95)


def test_clips_of_one_video_count_as_one():
    values, _ = scores(np.random.default_rng(1))
    keys = list(values["missing"])
    copied = {
        name: {key: rows[keys[number // 6]] for number, key in enumerate(keys)}
        for name, rows in values.items()
    }
    alone = known(copied, {key: number for number, key in enumerate(keys)})["psnr"]["missing"]
    grouped = known(copied, {key: number // 6 for number, key in enumerate(keys)})["psnr"][
        "missing"
    ]
    ratio = (grouped["high"] - grouped["low"]) / (alone["high"] - alone["low"])
    assert ratio == pytest.approx(np.sqrt(6), rel=0.15)


def test_shares_are_inside_their_intervals():
    values, video = scores(np.random.default_rng(2), videos=100)
    found = known(values, video)
    assert found["oracle_share"]["low"] == pytest.approx((1 - 1 / 4) / (1 - 1 / 10))
    assert found["oracle_share"]["high"] == pytest.approx((1 - 1 / 4) / (1 - 1 / 10))
    assert found["swapped_share"]["high"] == pytest.approx(0.5)


def test_the_auc_of_a_resample_is_that_of_the_drawn_clips():
    generator = np.random.default_rng(3)
    values, video = scores(generator, videos=7)
    counts = generator.integers(0, 4, (5, 7)).astype(float)
    counts[0] = 1
    found = _Auc.of(values, video)
    assert found is not None
    for row, reached in zip(counts, found.resampled(counts), strict=True):
        drawn = [
            np.repeat(
                [values[name][key]["relevance"] for key in video],
                [int(row[number]) for number in video.values()],
            )
            for name in ("matched", "mismatched")
        ]
        assert reached == pytest.approx(metrics.auc(*drawn))


def test_hits_of_a_retrieval():
    values, video = scores(np.random.default_rng(4))
    hits = {key: float(number % 4 == 0) for number, key in enumerate(video)}
    interval = intervals(values, (), video, hits)["r_at_1"]
    half = 1.96 * np.sqrt(0.25 * 0.75 / N)
    assert interval["low"] == pytest.approx(0.25 - half, abs=0.2 * half)


def test_the_seed_determines_the_intervals():
    values, video = scores(np.random.default_rng(5), videos=50)
    assert known(values, video) == known(values, video)
    assert known(values, video) != known(values, video, seed=1)


def test_a_single_video_is_rejected():
    values, video = scores(np.random.default_rng(6), videos=1)
    with pytest.raises(ValueError, match="one video"):
        known(values, video)
