"""The record of trials, on a path and in a store."""

import json
from pathlib import Path

import pytest

from data_prep import storage
from workflows.tuning.trials import Trial, TrialStore

TRIAL = Trial(
    id="0001",
    index=1,
    settings={"stage3.p_missing": 0.1 + 0.2, "model.backbone.name": "compact"},
    state="failed",
    scores=[{"step": 2, "loss": 1.0 / 3.0}, {"step": 4, "loss": 0.25}],
    reason="step 5: the loss is nan",
)


def test_a_trial_is_plain_json_in_its_own_folder(tmp_path: Path) -> None:
    store = TrialStore(str(tmp_path))
    assert store.load() == []
    store.save(TRIAL)
    text = (tmp_path / "trials" / "0001" / "trial.json").read_text()
    assert '"step": 2\n' in text
    assert json.loads(text) == {
        "id": "0001",
        "index": 1,
        "settings": {"stage3.p_missing": 0.1 + 0.2, "model.backbone.name": "compact"},
        "state": "failed",
        "scores": [{"step": 2, "loss": 1.0 / 3.0}, {"step": 4, "loss": 0.25}],
        "reason": "step 5: the loss is nan",
    }
    assert store.load() == [TRIAL]


def test_trials_of_a_store_come_in_the_order_of_their_draws(s3_place: str) -> None:
    store = TrialStore(storage.join(s3_place, "search"))
    assert store.load() == []
    for name, index in (("c", 0), ("a", 1), ("b", 2)):
        store.save(Trial(id=name, index=index, settings={}))
        storage.write_bytes(storage.join(store.folder(name), "stage2", "trial.json"), b"[]")
    assert [trial.id for trial in store.load()] == ["c", "a", "b"]


@pytest.mark.parametrize("content", ["", "[]", '{"id": "0001"}', '{"id": "0001", "index": "x"}'])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    store = TrialStore(str(tmp_path))
    store.save(TRIAL)
    (tmp_path / "trials" / "0001" / "trial.json").write_text(content)
    with pytest.raises(ValueError, match=r"0001/trial\.json' is damaged"):
        store.load()


def test_scores_are_kept_in_order_and_once_per_step() -> None:
    trial = Trial(id="0", index=0, settings={})
    assert trial.last_step == 0
    for step, loss in ((4, 0.4), (2, 0.2), (4, 0.5)):
        trial = trial.with_score(step, "loss", loss)
    assert trial.scored("loss") == {2: 0.2, 4: 0.5}
    assert trial.last_step == 4
    assert trial.scored("another") == {}
