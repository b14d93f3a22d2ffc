"""A subset of ``benchmarks/train_kills.py``."""

import itertools

import pytest

from fault_injection import train_kills
from fault_injection.train_kills import MOMENTS, POINTS, STAGES, Trainings

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="session")
def kill_shards(tmp_path_factory, make_clip):
    """Four shards of 36 clips."""
    folder = tmp_path_factory.mktemp("kills")
    return train_kills.make_shards(folder, make_clip)


def test_a_killed_training_loses_nothing(kill_shards, tmp_path):
    """On a local path, without uploads: each stage once, each at a different moment."""
    trainings = Trainings(kill_shards, str(tmp_path), {})
    points = {moment: POINTS[moment] for moment in MOMENTS if moment != "upload"}
    every_stage_and_moment = itertools.islice(
        train_kills.cases(0, points), len(points) * len(STAGES)
    )
    check_outcomes(trainings, list(every_stage_and_moment)[::4])


@pytest.mark.slow
def test_a_killed_upload_loses_nothing(kill_shards, rclone_s3, monkeypatch):
    rclone_s3.use(monkeypatch)
    trainings = Trainings(kill_shards, f"{rclone_s3.new_place()}/runs", rclone_s3.env)
    points = {"upload": POINTS["upload"]}
    check_outcomes(trainings, list(itertools.islice(train_kills.cases(1, points), len(STAGES))))


def check_outcomes(trainings, cases):
    outcomes = [trainings.kill_and_resume(case, n) for n, case in enumerate(cases)]
    assert [outcome for outcome in outcomes if outcome.faults] == []
    assert sum(outcome.killed > 0 for outcome in outcomes) >= 0.8 * len(cases), outcomes
