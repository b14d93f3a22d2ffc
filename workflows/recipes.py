"""Named recipes: functions that return a whole configuration."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aiaic import config
from aiaic.audio import AudioConfig
from aiaic.loader import ViewConfig
from aiaic.networks.backbone import BackboneConfig
from aiaic.networks.encoders import EncoderConfig
from aiaic.networks.guidance import GuidanceConfig
from aiaic.networks.model import ModelConfig
from aiaic.optimization import TrainingConfig
from aiaic.plan import SamplingConfig
from aiaic.recipe import Recipe
from aiaic.stages.audio_semantics import Stage2Config
from aiaic.stages.colorization import Stage1Config, Stage3Config

DEFAULT = "compact"
_FILE_KEYS = {"recipe", "overrides", "score", "search"}


def compact() -> Recipe:
    """The demo's recipe: small networks that learn the synthetic world on two cores."""
    return Recipe(
        name="compact",
        stage1=Stage1Config(steps=400, learning_rate=1e-3),
        stage2=Stage2Config(steps=200, learning_rate=1e-3),
        stage3=Stage3Config(steps=400, learning_rate=5e-4),
        training=TrainingConfig(save_every=200),
    )


def resnet34_unet() -> Recipe:
    """A ResNet-34 U-Net at 256 px, for real clips of 10 s on GPUs."""
    return Recipe(
        name="resnet34_unet",
        model=ModelConfig(
            backbone=BackboneConfig(name="resnet34_unet"),
            guidance=GuidanceConfig(levels=(0, 1), mlp_width=512),
            scene=EncoderConfig(name="resnet18"),
            sound=EncoderConfig(name="resnet18"),
            audio=AudioConfig(clip_s=10.0),
            semantics=256,
            scene_px=128,
        ),
        sampling=SamplingConfig(batch_size=64, streams=64),
        view=ViewConfig(size_px=256),
        stage1=Stage1Config(steps=60_000, learning_rate=3e-4),
        stage2=Stage2Config(steps=30_000, learning_rate=3e-4),
        stage3=Stage3Config(steps=30_000, learning_rate=1e-4),
        training=TrainingConfig(
            threads=4,
            decode_threads=4,
            warmup_steps=1000,
            ema_decay=0.999,
            report_every=50,
            save_every=2000,
        ),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "compact": compact,
    "resnet34_unet": resnet34_unet,
}


def load(
    name: str | None = None, config_file: str | None = None, settings: Sequence[str] = ()
) -> Recipe:
    """A recipe, changed by a file and by settings, the later winning.

    Args:
        name: of a recipe; the file's, or ``compact``, if None.
        config_file: JSON: either ``{"recipe": NAME, "overrides": {DOTTED KEY: VALUE}}``, as
            ``aiaic tune`` writes it, or a configuration's tree or part of it, as checkpoints do.
        settings: ``KEY=VALUE`` with dotted keys; the value is JSON, or else taken as text.

    Raises:
        ValueError: unknown recipe or key, a value that does not fit, a file that is no such JSON.
        FileNotFoundError: there is no such file.
    """
    named, overrides = _read(config_file) if config_file else (None, {})
    if name and named and name != named:
        raise ValueError(
            f"'{config_file}' is for recipe '{named}', not '{name}': leave out --recipe"
        )
    chosen = name or named or DEFAULT
    if chosen not in RECIPES:
        raise ValueError(f"unknown recipe '{chosen}'; known: {', '.join(sorted(RECIPES))}")
    return config.override(RECIPES[chosen](), overrides | config.parse_settings(settings))


def difference(recipe: Recipe) -> dict[str, Any]:
    """The dotted keys in which a recipe differs from the one of its name, with its values."""
    named = config.dotted_keys(config.to_json(RECIPES[recipe.name]()))
    ours = config.dotted_keys(config.to_json(recipe))
    return {key: value for key, value in ours.items() if value != named[key]}


def _read(config_file: str) -> tuple[str | None, dict[str, Any]]:
    """The recipe's name and the dotted overrides that a file holds."""
    path = Path(config_file)
    if not path.is_file():
        raise FileNotFoundError(f"no configuration file at '{config_file}'")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{config_file}' is no JSON: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"'{config_file}' holds no JSON object")
    if "overrides" not in tree and "recipe" not in tree:
        name = tree.pop("name", None)
        return name, config.dotted_keys(tree)
    if unknown := sorted(tree.keys() - _FILE_KEYS):
        raise ValueError(f"'{config_file}': unknown key '{unknown[0]}' beside 'overrides'")
    overrides = tree.get("overrides", {})
    if not isinstance(overrides, Mapping):
        raise ValueError(f"'{config_file}': 'overrides' is no JSON object")
    return tree.get("recipe"), config.dotted_keys(overrides)
