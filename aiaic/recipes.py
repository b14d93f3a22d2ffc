"""Named recipes: functions that return a whole configuration, and variants of them."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiaic import config
from aiaic.audio import AudioConfig
from aiaic.loading.augmentation import AugmentationConfig
from aiaic.loading.sample_reader import ViewConfig
from aiaic.loading.sampler import SamplingConfig
from aiaic.networks.backbone import BackboneConfig
from aiaic.networks.encoders import EncoderConfig
from aiaic.networks.guidance import GuidanceConfig
from aiaic.networks.model import ModelConfig
from aiaic.stages.audio_semantics import Stage2Config
from aiaic.stages.colorization import Stage1Config, Stage3Config
from aiaic.training.optim import TrainingConfig
from aiaic.training.recipe import Recipe

DEFAULT = "compact"
_FILE_KEYS = {"recipe", "overrides", "score", "search"}


def compact() -> Recipe:
    """Small networks that learn the synthetic world on two CPU cores; the demo's recipe."""
    return Recipe(
        name="compact",
        stage1=Stage1Config(steps=800, learning_rate=1e-3),
        stage2=Stage2Config(steps=200, learning_rate=1e-3),
        stage3=Stage3Config(steps=400, learning_rate=5e-4),
        training=TrainingConfig(validate_every=200, save_every=200),
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
        augmentation=AugmentationConfig(p_mix=0.25, mask_time_share=0.2, mask_mel_share=0.2),
        stage1=Stage1Config(steps=60_000, learning_rate=3e-4, scene_view="frame"),
        stage2=Stage2Config(steps=30_000, learning_rate=3e-4),
        stage3=Stage3Config(steps=30_000, learning_rate=1e-4),
        training=TrainingConfig(
            threads=4,
            decode_threads=4,
            warmup_steps=1000,
            ema_decay=0.999,
            report_every=50,
            validate_every=2000,
            save_every=500,
        ),
    )


def convnext_tiny_unet() -> Recipe:
    """A ConvNeXt-Tiny U-Net at 256 px, for real clips of 10 s on GPUs."""
    larger = {"model.backbone.name": "convnext_tiny_unet"}
    return _named("convnext_tiny_unet", config.override(resnet34_unet(), larger))


def vggsound() -> Recipe:
    """VGGSound's 200,000 clips of 10 s on one node of eight GPUs (``--workers 8``)."""
    larger = {
        "sampling.batch_size": 256,
        "sampling.streams": 128,
        "stage1.steps": 80_000,
        "stage2.steps": 40_000,
        "stage3.steps": 40_000,
    }
    return _named("vggsound", config.override(resnet34_unet(), larger))


def vggsound_one_gpu() -> Recipe:
    """VGGSound on one GPU (``--workers 1``): each step in four micro-batches of 64.

    Stage 2 then tells a sound's picture from 63 others instead of 255; where 256 fit into memory,
    use ``vggsound``. There are fewer streams because one worker reads them all: the shards it has
    open at a time fit into its cache of whole shards.
    """
    own = {"training.accumulate": 4, "sampling.streams": 16}
    return _named("vggsound_one_gpu", config.override(vggsound(), own))


def vggsound_nodes() -> Recipe:
    """VGGSound on four nodes of eight GPUs (``--workers 32``): batches four times as large.

    A quarter of the steps, with weights averaged over as many samples as before. Learning rates
    grow with the square root of the batch size, as AdamW's should (Malladi et al. 2022, arXiv
    2205.10287), and warm up over as many steps, which is four times the samples.
    """
    original, times = vggsound(), 4
    training, sampling = original.training, original.sampling
    scaled: dict[str, Any] = {
        "sampling.batch_size": sampling.batch_size * times,
        "sampling.streams": 256,
        "training.ema_decay": training.ema_decay**times,
        "training.validate_every": training.validate_every // times,
        "training.save_every": training.save_every // times,
    }
    for name in ("stage1", "stage2", "stage3"):
        stage = getattr(original, name)
        scaled[f"{name}.steps"] = stage.steps // times
        scaled[f"{name}.learning_rate"] = stage.learning_rate * times**0.5
    return _named("vggsound_nodes", config.override(original, scaled))


def ave() -> Recipe:
    """AVE's 4,143 clips of 10 s on one GPU."""
    shorter = {
        "stage1.steps": 12_000,
        "stage2.steps": 4_000,
        "stage3.steps": 6_000,
        "training.warmup_steps": 500,
        "training.validate_every": 500,
    }
    return _named("ave", config.override(resnet34_unet(), shorter))


NETWORKS: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe
    for recipe in (
        compact,
        resnet34_unet,
        convnext_tiny_unet,
        vggsound,
        vggsound_one_gpu,
        vggsound_nodes,
        ave,
    )
}
"""Recipes by networks or data set, each with all of our extensions to the method."""

VARIANTS: dict[str, dict[str, Any]] = {
    "best": {},
    "paper": {
        "stage1.scene_view": "same",
        "stage1.p_missing": 0.0,
        "stage1.p_mismatch": 0.0,
        "stage2.info_nce_weight": 0.0,
        "stage3.p_missing": 0.0,
        "stage3.p_mismatch": 0.0,
        "stage3.relevance_weight": 0.0,
    },
    "no_dsg": {
        "model.guidance.always_relevant": True,
        "stage1.p_mismatch": 0.0,
        "stage3.p_mismatch": 0.0,
    },
    "no_mismatch": {"stage1.p_mismatch": 0.0, "stage3.p_mismatch": 0.0},
    "no_missing": {"stage1.p_missing": 0.0, "stage3.p_missing": 0.0},
    "no_info_nce": {"stage2.info_nce_weight": 0.0},
    "no_distillation": {"stage2.distillation_weight": 0.0},
    "one_level": {"model.guidance.levels": [0]},
    "all_levels": {"model.guidance.levels": "all"},
    "from_scratch": {"stage3.from_scratch": True, "stage3.audio_share": 1.0},
    "same_frame": {"stage1.scene_view": "same"},
    "augmented": {
        "augmentation.p_mix": 0.25,
        "augmentation.mask_time_share": 0.2,
        "augmentation.mask_mel_share": 0.2,
    },
}
"""Changes to the method, by name: settings that differ from the recipe's own."""

PURPOSES: dict[str, str] = {
    "best": "All of our extensions; the same as naming no variant.",
    "paper": "The plainest reading of arXiv 2401.13270, without our extensions.",
    "no_dsg": "Always guided: no relevance score, and no mismatched pairs to train it.",
    "no_mismatch": "No mismatched pairs in training.",
    "no_missing": "Semantics are never dropped in training.",
    "no_info_nce": "Stage 2 without its contrastive loss.",
    "no_distillation": "Stage 2 without its distillation loss.",
    "one_level": "Guidance at the deepest feature map only.",
    "all_levels": "Guidance at every feature map.",
    "from_scratch": "Stage 3 from random weights, to measure the worth of stages 1 and 2.",
    "same_frame": "Stage-1 semantics from the very picture that is coloured, so colours leak.",
    "augmented": "Sounds are mixed and masked in training (which 'compact' leaves out).",
}
"""What each variant is for."""

NAMES = tuple(
    networks if variant == "best" else f"{networks}/{variant}"
    for networks in NETWORKS
    for variant in VARIANTS
)
"""The names of all recipes."""


def named(name: str) -> Recipe:
    """A recipe by name: ``networks``, ``networks/variant``, or a variant of ``compact``.

    Raises:
        ValueError: there is no such recipe.
    """
    networks, _, variant = name.partition("/")
    if networks in VARIANTS and not variant:
        networks, variant = DEFAULT, networks
    variant = variant or "best"
    if networks not in NETWORKS or variant not in VARIANTS:
        known = NAMES if "/" in name else (*NETWORKS, *VARIANTS)
        near = ", ".join(difflib.get_close_matches(name, known, n=3) or NETWORKS)
        raise ValueError(
            f"unknown recipe '{name}'; near ones: {near}; 'aiaic recipes' lists all of them"
        )
    recipe = NETWORKS[networks]()
    if variant == "best":
        return recipe
    return _named(f"{networks}/{variant}", config.override(recipe, VARIANTS[variant]))


def _named(name: str, recipe: Recipe) -> Recipe:
    return dataclasses.replace(recipe, name=name)


def load(
    name: str | None = None, config_file: str | None = None, settings: Sequence[str] = ()
) -> Recipe:
    """A recipe with overrides from a file and from settings; settings take precedence.

    Args:
        name: of a recipe; None: the file's, or ``compact``.
        config_file: JSON: either ``{"recipe": NAME, "overrides": {DOTTED KEY: VALUE}}``, as written
            by ``aiaic tune``, or a configuration or part of one, as stored in checkpoints.
        settings: ``KEY=VALUE`` with dotted keys; values are JSON, otherwise text.

    Raises:
        ValueError: unknown recipe or key, a value of the wrong type, or a file of another format.
        FileNotFoundError: the file does not exist.
    """
    file_recipe, overrides = _read(config_file) if config_file else (None, {})
    recipe = named(name or file_recipe or DEFAULT)
    if file_recipe and recipe.name != named(file_recipe).name:
        raise ValueError(
            f"'{config_file}' is for recipe '{file_recipe}', not '{name}': leave out --recipe"
        )
    return config.override(recipe, overrides | config.parse_settings(settings))


def difference(recipe: Recipe) -> dict[str, Any]:
    """The settings in which a recipe differs from the named one, by dotted key."""
    original = config.dotted_keys(config.to_json(named(recipe.name)))
    ours = config.dotted_keys(config.to_json(recipe))
    return {key: value for key, value in ours.items() if value != original[key]}


def _read(config_file: str) -> tuple[str | None, dict[str, Any]]:
    """The recipe's name, if any, and the dotted overrides in a file."""
    tree = config.read_json(config_file, "configuration file")
    if "overrides" not in tree and "recipe" not in tree:
        name = tree.pop("name", None)
        return name, config.dotted_keys(tree)
    if unknown := sorted(tree.keys() - _FILE_KEYS):
        raise ValueError(f"'{config_file}': unknown key '{unknown[0]}' beside 'overrides'")
    overrides = tree.get("overrides", {})
    if not isinstance(overrides, Mapping):
        raise ValueError(f"'{config_file}': 'overrides' is not a JSON object")
    return tree.get("recipe"), config.dotted_keys(overrides)
