"""Which clips are shown as the best, the worst and the furthest."""

import pytest
import torch

from aiaic.evaluation import metrics
from workflows.evaluation.job import EvaluationJob
from workflows.evaluation.target import open_target
from workflows.report import extremes


def scores(gains, matched=None):
    names = [chr(ord("a") + number) for number in range(len(gains))]
    matched = matched or [30.0] * len(gains)
    return {
        "matched": {n: {"psnr": m} for n, m in zip(names, matched, strict=True)},
        "missing": {n: {"psnr": m - g} for n, m, g in zip(names, matched, gains, strict=True)}
        | {"silent": {"psnr": 1.0}},
    }


def test_the_most_extreme_come_first():
    chosen = extremes.choose(scores([1.0, 5.0, -2.0, 3.0, 0.0], [25.0, 30.0, 28.0, 20.0, 40.0]), 2)
    assert chosen == {
        extremes.BEST: ["b", "d"],
        extremes.WORST: ["c", "e"],
        extremes.FURTHEST: ["d", "a"],
    }


def test_no_clip_is_both_best_and_worst():
    chosen = extremes.choose(scores([1.0, 2.0, 3.0]), 6)
    assert chosen == {
        extremes.BEST: ["c"],
        extremes.WORST: ["a"],
        extremes.FURTHEST: ["a", "b", "c"],
    }


def test_there_are_no_extremes_without_sound():
    assert extremes.choose({"missing": {"a": {"psnr": 3.0}}}, 6) == {}


def test_pictures_are_those_that_were_scored(shards, untrained_run):
    job = EvaluationJob(shards=shards, checkpoint=str(untrained_run), split="test")
    target = open_target(job, torch.device("cpu"))
    key = target.refs[1].key
    row = {key: {"psnr": 20.0}}
    found = extremes.colorize(
        {extremes.BEST: [key]},
        target.refs,
        {"matched": row, "missing": {key: {"psnr": 18.0}}},
        names={key: "owl"},
        model=target.networks.model,
        loader=target.loader(with_sound=True),
    )
    (clip,) = found[extremes.BEST]
    assert (clip.key, clip.label, clip.psnr_missing, clip.psnr_matched) == (key, "owl", 18, 20)
    (batch,) = target.loader(with_sound=False).evaluation(target.refs[1:2], 1)
    assert (torch.from_numpy(clip.truth).permute(2, 0, 1) == batch.picture[0]).all()
    pair = [torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None] for rgb in (clip.own, clip.truth)]
    assert metrics.psnr(*pair).item() < metrics.MAX_PSNR_DB
    assert clip.grey.std(axis=2).max() < 1.5
    assert (clip.own != clip.without_sound).any()


@pytest.mark.parametrize("size_px", [0, -32, 40])
def test_a_size_that_is_not_a_multiple_of_32_is_rejected(shards, untrained_run, size_px):
    job = EvaluationJob(shards=shards, checkpoint=str(untrained_run), split="test", size_px=size_px)
    with pytest.raises(ValueError, match=f"--size-px is {size_px}: use a multiple of 32"):
        open_target(job)
