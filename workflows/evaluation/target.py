"""What is evaluated: a checkpoint and its relatives, and the clips of a split."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from tqdm import tqdm

from aiaic import config
from aiaic.checkpointing import checkpoint
from aiaic.evaluation.encoding import Networks
from aiaic.inference import colorizer
from aiaic.loading.batch import Batch
from aiaic.loading.loader import Loader, Protocol, Read, ViewConfig
from aiaic.loading.sampler import SampleRef
from aiaic.training import resume
from aiaic.training.recipe import Recipe
from data_prep import storage
from workflows.artifacts import run_folder
from workflows.artifacts.samples import open_evaluation
from workflows.options import Evaluate

_CHUNK_BATCHES = 4
_SIZE_MULTIPLE_PX = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated, and on what."""

    place: str
    """Of the checkpoint itself."""
    record: checkpoint.Record
    recipe: Recipe
    networks: Networks
    model_sha256: str
    refs: tuple[SampleRef, ...]
    read: Read
    split: str
    manifest_digest: str
    labels: dict[str, str] | None
    view: ViewConfig
    """The size that is evaluated."""
    protocol: Protocol
    device: torch.device

    def loader(self, *, with_sound: bool) -> Loader:
        """Reads clips in the view that is evaluated."""
        return Loader(
            read=self.read,
            view=self.view,
            audio=self.recipe.model.audio if with_sound else None,
            threads=self.recipe.training.decode_threads,
            protocol=self.protocol,
        )

    def chunks(self) -> list[Callable[[], Iterable[Batch]]]:
        """All clips in order as chunks of whole batches, whoever takes them."""
        loader = self.loader(with_sound=self.networks.hears)
        batch_size = self.recipe.evaluated_at_once
        size = _CHUNK_BATCHES * batch_size
        parts = [self.refs[start : start + size] for start in range(0, len(self.refs), size)]
        return [lambda part=part: loader.evaluation(part, batch_size) for part in parts]

    def batches(
        self, refs: Sequence[SampleRef], doing: str, *, with_sound: bool
    ) -> Iterator[Batch]:
        """All clips in order, with a progress bar."""
        loader = self.loader(with_sound=with_sound)
        with tqdm(total=len(refs), desc=doing, unit="clip") as bar:
            for batch in loader.evaluation(refs, self.recipe.evaluated_at_once):
                yield batch
                bar.update(len(batch))


def open_subject(options: Evaluate, device: torch.device | None = None) -> Subject:
    """Read the checkpoint and the list of clips.

    Args:
        options: the command's.
        device: for the networks; a GPU where there is one if absent.

    Raises:
        FileNotFoundError, ValueError: one of them is not there, or not what it should be.
    """
    samples = open_evaluation(options.shards, options.split)
    place = run_folder.resolve(options.checkpoint)
    folder = run_folder.fetch(place)
    record = checkpoint.read_record(folder)
    recipe = config.from_json(Recipe, record.recipe)
    resume.check_sound(record.stage, recipe, samples)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = colorizer.load(folder).to(device)
    stage1 = model
    if record.stage > 1:
        try:
            stage1 = colorizer.load(run_folder.fetch_stage(place, 1)).to(device)
        except FileNotFoundError:
            stage1 = None
    refs = samples.validation[: options.limit]
    labels = {ref.key: ref.label for ref in refs}
    return Subject(
        place=place,
        record=record,
        recipe=recipe,
        networks=Networks(
            model=model,
            hears=record.stage > 1,
            sees=not (record.stage == 3 and recipe.stage3.from_scratch),
            stage1=stage1,
        ),
        model_sha256=checkpoint.model_sha256(folder),
        refs=refs,
        read=samples.read,
        split=samples.split,
        manifest_digest=samples.manifest_digest,
        labels=labels if any(labels.values()) else None,
        view=_view(options, recipe),
        protocol=options.protocol,
        device=device,
    )


def run_of(place: str) -> str | None:
    """The run that a checkpoint ``RUN/stageN/step-X`` is part of; None where it stands alone."""
    stage = run_folder.storage_parent(place)
    in_run = storage.name_of(stage) in {f"stage{number}" for number in run_folder.STAGES}
    return run_folder.storage_parent(stage) if in_run else None


def _view(options: Evaluate, recipe: Recipe) -> ViewConfig:
    size_px = options.size_px
    if size_px is None:
        return recipe.view
    if size_px < 1 or size_px % _SIZE_MULTIPLE_PX:
        raise ValueError(f"--size-px is {size_px}: give a multiple of {_SIZE_MULTIPLE_PX}")
    return dataclasses.replace(recipe.view, size_px=size_px)
