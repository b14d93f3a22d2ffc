"""Recipes by name, by file and by settings."""

import json
import re
from pathlib import Path

import pytest

from aiaic import config, recipes


@pytest.mark.parametrize("name", recipes.NAMES)
def test_a_recipe_bears_its_name_and_survives_json(name: str) -> None:
    recipe = recipes.load(name)
    assert recipe.name == name
    assert config.from_json(type(recipe), json.loads(json.dumps(config.to_json(recipe)))) == recipe


def test_settings_win_over_a_file_which_wins_over_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "best.json"
    overrides = {"model.guidance.tau": 0.25, "stage3.steps": 7}
    file.write_text(json.dumps({"recipe": "compact", "overrides": overrides, "score": 0.1}))
    recipe = recipes.load(None, str(file), ["stage3.steps=9", "training.precision=fp32"])
    assert recipe.model.guidance.tau == 0.25
    assert recipe.stage3.steps == 9
    assert recipe.training.precision == "fp32"
    assert recipe.stage1 == recipes.load("compact").stage1


def test_a_whole_configuration_is_a_file_as_well(tmp_path: Path) -> None:
    changed = recipes.load("compact", settings=["stage1.steps=3", "model.guidance.levels=[0]"])
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(config.to_json(changed)))
    assert recipes.load(None, str(file)) == changed


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "not JSON"),
        ("[1]", "does not contain a JSON object"),
        ('{"overrides": {"model.nothing": 1}}', "model.nothing"),
        ('{"overrides": {}, "wrong": 1}', "wrong"),
        ('{"model": {"nothing": 1}}', "model.nothing"),
        ('{"stage1": {"steps": "many"}}', "stage1.steps"),
        ('{"recipe": "resnet34_unet"}', "resnet34_unet"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, content: str, named: str) -> None:
    file = tmp_path / "wrong.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=named):
        recipes.load("compact", str(file))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (["stage1.steps"], "KEY=VALUE"),
        (["stage1.stps=1"], "stage1.steps"),
        (["stage1.steps=0"], r"stage1.steps.*greater than or equal to 1, not 0"),
        (["stage3.steps=-1"], r"stage3.steps.*greater than or equal to 1, not -1"),
        (["training.threads=0"], r"training.threads.*greater than or equal to 1, not 0"),
        (
            ["training.decode_threads=0"],
            r"training.decode_threads.*equal to 1, not 0",
        ),
    ],
)
def test_a_wrong_setting_is_refused(settings: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        recipes.load("compact", settings=settings)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        recipes.load(None, "nowhere.json")


def test_vggsound_sees_as_many_samples_on_any_hardware() -> None:
    one, node, nodes = (recipes.load(f"vggsound{name}") for name in ("_one_gpu", "", "_nodes"))
    for stage in ("stage1", "stage2", "stage3"):
        seen = {r.sampling.batch_size * getattr(r, stage).steps for r in (one, node, nodes)}
        assert len(seen) == 1, stage
        assert getattr(nodes, stage).learning_rate == 2 * getattr(node, stage).learning_rate
    assert nodes.training.ema_decay == pytest.approx(node.training.ema_decay**4)


@pytest.mark.parametrize(
    ("name", "workers", "parts"),
    [("vggsound_one_gpu", 1, 4), ("vggsound", 8, 1), ("vggsound_nodes", 32, 1)],
)
def test_workers_share_a_recipes_streams_evenly(name: str, workers: int, parts: int) -> None:
    recipe = recipes.load(name)
    assert recipe.training.accumulate == parts
    assert recipe.sampling.streams % workers == 0
    assert recipe.sampling.batch_size % (workers * parts) == 0


@pytest.mark.parametrize(
    "setting",
    [
        *("stage1.learning_rate=0", "stage2.learning_rate=-0.1", "stage3.learning_rate=1e999"),
        *("training.clip_norm=0", "training.clip_norm=-1", "training.ema_decay=2"),
        *("training.weight_decay=-5", "training.warmup_steps=-5", "training.keep=0"),
        *("training.accumulate=0", "training.collective_timeout_s=0.5", "training.save_every=0"),
        *("stage1.smoothing=3", "stage3.p_missing=7", "stage1.p_mismatch=-0.1", "stage1.beta=0"),
        *("stage1.relevance_weight=-1", "stage3.audio_share=2", "stage2.temperature=0"),
        *("stage2.info_nce_weight=-1", "sampling.block_shards=0", "sampling.streams=0"),
        *("sampling.batch_size=0", f"sampling.seed={10**20}", "sampling.seed=-1"),
        *("model.guidance.tau=-1", "model.guidance.eps=0", "model.guidance.levels=[0,0]"),
        *("model.guidance.levels=[-1]", "model.guidance.mlp_width=0", "model.semantics=0"),
        *("model.semantics=100000000000", "model.backbone.width=200000", "model.scene.width=-1"),
        *("model.backbone.width=-1", "model.audio.mels=0", "model.audio.clip_s=0"),
        *("model.audio.hop_ms=0", "model.audio.sample_rate_hz=0", "view.size_px=33"),
        *("view.size_px=60000", "view.size_px=0", "augmentation.p_mix=2"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(setting):
    key, _, value = setting.partition("=")
    with pytest.raises(ValueError, match=re.escape(key)) as refused:
        recipes.load(settings=(setting,))
    message = str(refused.value)
    assert "\n" not in message
    assert key == "model.guidance.levels" or value.rstrip("0") in message or "inf" in message
