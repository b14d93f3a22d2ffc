"""What a stage may start from, and which run it may go on with."""

import dataclasses
from pathlib import Path

from aiaic import config
from aiaic.checkpointing import checkpoint
from aiaic.loading.loader import Samples
from aiaic.networks import model as networks
from aiaic.networks.model import Model
from aiaic.training import build_stage as stages
from aiaic.training.recipe import Recipe

_FREE = frozenset(
    f"training.{key}"
    for key in (
        "precision",
        "threads",
        "decode_threads",
        "save_every",
        "keep",
        "compile",
        "collective_timeout_s",
    )
)
"""What may change from one attempt to the next: it decides nothing that is learned."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Init:
    """The checkpoint that a stage starts from."""

    folder: Path
    """The checkpoint as a local folder."""
    place: str
    """Path or URI as the user gave it."""


def load_init(
    model: Model, stage: int, recipe: Recipe, init: Init | None
) -> checkpoint.Origin | None:
    """Load the stage before into ``model``.

    Raises:
        ValueError: the checkpoint is missing, needless, of another stage or architecture.
    """
    if init is None:
        if stage > 1 and not from_scratch(stage, recipe):
            raise ValueError(
                f"stage {stage} starts from a checkpoint of stage {stage - 1}: name one"
            )
        return None
    record = checkpoint.read_record(init.folder)
    check_init(record, stage, recipe, init.place)
    model.load_state_dict(checkpoint.read_model(init.folder))
    return checkpoint.Origin(
        place=init.place, stage=record.stage, model_sha256=checkpoint.model_sha256(init.folder)
    )


def check_sound(stage: int, recipe: Recipe, samples: Samples) -> None:
    """Refuse sounds of another sample rate than the networks of a stage expect, if it hears any.

    Raises:
        ValueError: they are.
    """
    expected = recipe.model.audio.sample_rate_hz
    if stages.needs(stage, recipe).sound and samples.sample_rate_hz != expected:
        raise ValueError(
            f"the shards' sound has {samples.sample_rate_hz} Hz, the recipe's "
            f"model.audio.sample_rate_hz is {expected}: rebuild the shards or change the recipe"
        )


def from_scratch(stage: int, recipe: Recipe) -> bool:
    """Whether a stage begins with random weights."""
    return stage == 1 or (stage == 3 and recipe.stage3.from_scratch)


def check_init(record: checkpoint.Record, stage: int, recipe: Recipe, place: str) -> None:
    """Refuse a checkpoint that ``stage`` cannot start from.

    Raises:
        ValueError: it is needless, not of the stage before, or of another architecture.
    """
    if from_scratch(stage, recipe):
        raise ValueError(f"stage {stage} starts from scratch: leave out the initial checkpoint")
    if record.stage != stage - 1:
        raise ValueError(
            f"'{place}' is a checkpoint of stage {record.stage}; "
            f"stage {stage} starts from one of stage {stage - 1}"
        )
    check_architecture(record, recipe, place)


def check_architecture(record: checkpoint.Record, recipe: Recipe, place: str) -> None:
    """Refuse a checkpoint whose networks differ from the recipe's, by the first key that differs.

    Raises:
        ValueError: they differ.
    """
    theirs = config.from_json(networks.ModelConfig, record.recipe["model"]).architecture()
    for key, ours in recipe.model.architecture().items():
        if theirs[key] != ours:
            raise ValueError(
                f"'{place}' has another architecture: model.{key} is {theirs[key]!r} there and "
                f"{ours!r} in recipe '{recipe.name}'"
            )


def check_same_init(begun: checkpoint.Record, model_sha256: str) -> None:
    """Refuse to go on with a stage that was begun from another checkpoint.

    Args:
        begun: a checkpoint of the stage.
        model_sha256: of the model that it is to start from now.

    Raises:
        ValueError: it was.
    """
    if begun.init is not None and begun.init.model_sha256 != model_sha256:
        raise ValueError(
            f"stage {begun.stage} was begun from another checkpoint, then '{begun.init.place}': "
            f"delete the stage's folder to train it anew, name that one by --stage {begun.stage} "
            "--init if it is still the same, or take another output folder"
        )


def check_same_run(record: checkpoint.Record, recipe: Recipe, samples: Samples, stage: int) -> None:
    """Refuse to go on with a run that was begun otherwise.

    Raises:
        ValueError: recipe, shards, split or stage differ.
    """
    ours, theirs = config.dotted_keys(config.to_json(recipe)), config.dotted_keys(record.recipe)
    differing = [key for key in ours if ours[key] != theirs.get(key) and key not in _FREE]
    others = {
        "the stage": (record.stage, stage),
        "the shards' manifest": (record.manifest_digest, samples.manifest_digest),
        "the split": (record.split, samples.split),
    } | {key: (theirs.get(key), ours[key]) for key in differing}
    for what, (then, now) in others.items():
        if then != now:
            raise ValueError(
                f"this run was begun otherwise: {what} was {then!r} and is {now!r} now; "
                "take another output folder, or the former settings"
            )
