"""What a stage may start from, and which settings may change when it resumes."""

import dataclasses
from pathlib import Path

from aiaic import config
from aiaic.checkpointing import checkpoint
from aiaic.checkpointing.checkpoint import Origin, Record
from aiaic.loading.loader import Samples
from aiaic.networks.model import Model, ModelConfig
from aiaic.training import build_stage
from aiaic.training.recipe import Recipe

_MAY_CHANGE = frozenset(
    f"training.{key}"
    for key in (
        "precision",  # see check_same_precision
        "threads",
        "decode_threads",
        "save_every",
        "keep",
        "compile",
        "collective_timeout_s",
    )
)
"""Settings that may differ between attempts: they do not affect what is learned."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Init:
    """The checkpoint that a stage starts from."""

    folder: Path
    """The checkpoint as a local folder."""
    place: str
    """Path or URI as the user gave it."""


def from_scratch(stage: int, recipe: Recipe) -> bool:
    """Whether a stage starts with random weights rather than from the previous stage."""
    return stage == 1 or (stage == 3 and recipe.stage3.from_scratch)


def load_init(model: Model, stage: int, recipe: Recipe, init: Init | None) -> Origin | None:
    """Load the previous stage's weights into ``model``.

    Raises:
        ValueError: the checkpoint is missing, unnecessary, or of another stage or architecture.
    """
    if init is None:
        if not from_scratch(stage, recipe):
            raise ValueError(
                f"stage {stage} starts from a checkpoint of stage {stage - 1}: pass one by --init"
            )
        return None
    record = checkpoint.read_record(init.folder)
    check_init(record, stage, recipe, init.place)
    model.load_state_dict(checkpoint.read_model(init.folder))
    sha256 = checkpoint.model_sha256(init.folder)
    return Origin(place=init.place, stage=record.stage, model_sha256=sha256)


def check_sound(stage: int, recipe: Recipe, samples: Samples) -> None:
    """Refuse sound of another sample rate than the networks expect, if the stage uses sound.

    Raises:
        ValueError: the sample rates differ.
    """
    expected = recipe.model.audio.sample_rate_hz
    if build_stage.needs(stage, recipe).sound and samples.sample_rate_hz != expected:
        raise ValueError(
            f"the shards' sound has {samples.sample_rate_hz} Hz, the recipe's "
            f"model.audio.sample_rate_hz is {expected}: rebuild the shards or change the recipe"
        )


def check_init(record: Record, stage: int, recipe: Recipe, place: str) -> None:
    """Refuse a checkpoint that ``stage`` cannot start from.

    Raises:
        ValueError: it is unnecessary, not of the previous stage, or of another architecture.
    """
    if from_scratch(stage, recipe):
        raise ValueError(f"stage {stage} starts from scratch: leave out the initial checkpoint")
    if record.stage != stage - 1:
        raise ValueError(
            f"'{place}' is a checkpoint of stage {record.stage}; "
            f"stage {stage} starts from one of stage {stage - 1}"
        )
    check_architecture(record, recipe, place)


def check_architecture(record: Record, recipe: Recipe, place: str) -> None:
    """Refuse a checkpoint whose networks differ from the recipe's.

    Raises:
        ValueError: they differ; the first differing key is named.
    """
    theirs = config.from_json(ModelConfig, record.recipe["model"]).architecture()
    for key, ours in recipe.model.architecture().items():
        if theirs[key] != ours:
            raise ValueError(
                f"'{place}' has another architecture: model.{key} is {theirs[key]!r} there and "
                f"{ours!r} in recipe '{recipe.name}'"
            )


def check_same_init(started: Record, model_sha256: str) -> None:
    """Refuse to resume a stage that started from another checkpoint.

    Args:
        started: any record of the stage.
        model_sha256: of the model that the stage is to start from now.

    Raises:
        ValueError: it started from another one.
    """
    if started.init is not None and started.init.model_sha256 != model_sha256:
        raise ValueError(
            f"stage {started.stage} was started from another checkpoint, '{started.init.place}' "
            "as it was then: delete the stage's folder to train it again, pass that checkpoint by "
            f"--stage {started.stage} --init if it is unchanged, or use a new output folder"
        )


def check_same_precision(record: Record, precision: str) -> None:
    """Refuse to resume in another precision, which ``auto`` may choose on other hardware.

    Raises:
        ValueError: the precision differs.
    """
    if record.precision and record.precision != precision:
        raise ValueError(
            f"this run was started in {record.precision}, and would be {precision} on this "
            f"machine: pass --set training.precision={record.precision}, or use a new output folder"
        )


def check_same_run(record: Record, recipe: Recipe, samples: Samples, stage: int) -> None:
    """Refuse to resume a run with different settings.

    Raises:
        ValueError: recipe, shards, split or stage differ; the first difference is named.
    """
    ours, theirs = config.dotted_keys(config.to_json(recipe)), config.dotted_keys(record.recipe)
    pairs = {
        "the stage": (record.stage, stage),
        "the shards' manifest": (record.manifest_digest, samples.manifest_digest),
        "the split": (record.split, samples.split),
    } | {key: (theirs.get(key), value) for key, value in ours.items() if key not in _MAY_CHANGE}
    for what, (then, now) in pairs.items():
        if then != now:
            raise ValueError(
                f"this run was started with different settings: {what} was {then!r}, is now "
                f"{now!r}. Use a new output folder, or restore the setting"
            )
