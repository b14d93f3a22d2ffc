"""Opens what an evaluation job names: a checkpoint with its networks, and the clips of a split."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from aiaic import config
from aiaic.checkpointing import checkpoint
from aiaic.evaluation.conditions import GroundTruth
from aiaic.evaluation.encoding import Networks
from aiaic.inference import colorizer
from aiaic.loading.batch import Batch
from aiaic.loading.loader import Loader
from aiaic.loading.sample_reader import Protocol, Read, ViewConfig
from aiaic.loading.sampler import SampleRef
from aiaic.training import resume
from aiaic.training.recipe import Recipe
from data_prep import storage
from workflows.artifacts import run_folder
from workflows.artifacts.samples import open_evaluation
from workflows.evaluation import ground_truth
from workflows.evaluation.ground_truth import SyntheticWorld
from workflows.evaluation.job import EvaluationJob

_CHUNK_BATCHES = 4
_SIZE_MULTIPLE_PX = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationTarget:
    """What is evaluated, on which clips, and in which view."""

    place: str
    """Place of the checkpoint itself."""
    record: checkpoint.Record
    recipe: Recipe
    networks: Networks
    model_sha256: str
    refs: tuple[SampleRef, ...]
    """The evaluated clips, in order."""
    read: Read
    split: str
    manifest_digest: str
    labels: dict[str, str] | None
    """Label of each clip by key; None where no clip has one."""
    world: SyntheticWorld | None
    """The synthetic world of the clips, if its ground truth was given."""
    view: ViewConfig
    """View in which pictures are evaluated."""
    protocol: Protocol
    device: torch.device

    @property
    def truth(self) -> GroundTruth | None:
        """Ground truth of the clips, if it was given."""
        return None if self.world is None else self.world.truth

    def loader(self, *, with_sound: bool) -> Loader:
        """A loader that reads clips in the evaluated view."""
        return Loader(
            read=self.read,
            view=self.view,
            audio=self.recipe.model.audio if with_sound else None,
            threads=self.recipe.training.decode_threads,
            protocol=self.protocol,
        )

    def chunks(self) -> list[Callable[[], Iterable[Batch]]]:
        """All clips in order, as chunks of whole batches; the same chunks in every process."""
        loader = self.loader(with_sound=self.networks.audio_trained)
        batch_size = self.recipe.evaluated_at_once
        size = _CHUNK_BATCHES * batch_size
        parts = [self.refs[start : start + size] for start in range(0, len(self.refs), size)]
        return [lambda part=part: loader.evaluation(part, batch_size) for part in parts]

    def batches(
        self, refs: Sequence[SampleRef], description: str, *, with_sound: bool
    ) -> Iterator[Batch]:
        """Batches of some clips, in order, with a progress bar."""
        loader = self.loader(with_sound=with_sound)
        with tqdm(total=len(refs), desc=description, unit="clip") as bar:
            for batch in loader.evaluation(refs, self.recipe.evaluated_at_once):
                yield batch
                bar.update(len(batch))


def open_target(job: EvaluationJob, device: torch.device | None = None) -> EvaluationTarget:
    """Read the checkpoint, the list of clips and, if given, the ground truth.

    Args:
        job: what to evaluate.
        device: device of the networks; None: a GPU if there is one.

    Raises:
        FileNotFoundError: the shards, the checkpoint or the ground truth do not exist.
        ValueError: one of them is damaged, or they do not belong together.
    """
    world = None if job.truth is None else ground_truth.read(job.truth)
    samples = open_evaluation(job.shards, job.split)
    place = run_folder.resolve(job.checkpoint)
    folder = run_folder.fetch(place)
    record = checkpoint.read_record(folder)
    recipe = config.from_json(Recipe, record.recipe)
    resume.check_sound(record.stage, recipe, samples)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    networks = _load_networks(place, folder, record, recipe, device)
    refs = samples.validation[: job.limit]
    labels = {ref.key: ref.label for ref in refs}
    if world is not None:
        world.truth.require([ref.key for ref in refs])
    return EvaluationTarget(
        place=place,
        record=record,
        recipe=recipe,
        networks=networks,
        model_sha256=checkpoint.model_sha256(folder),
        refs=refs,
        read=samples.read,
        split=samples.split,
        manifest_digest=samples.manifest_digest,
        labels=labels if any(labels.values()) else None,
        world=world,
        view=_view(job, recipe),
        protocol=job.protocol,
        device=device,
    )


def run_of(place: str) -> str | None:
    """The run that a checkpoint ``RUN/stageN/step-X`` belongs to; None outside of a run."""
    stage = storage.parent_of(place)
    in_run = storage.name_of(stage) in {f"stage{number}" for number in run_folder.STAGES}
    return storage.parent_of(stage) if in_run else None


def _load_networks(
    place: str, folder: Path, record: checkpoint.Record, recipe: Recipe, device: torch.device
) -> Networks:
    model = colorizer.load(folder).to(device)
    stage1 = model
    if record.stage > 1:
        try:
            stage1 = colorizer.load(run_folder.fetch_stage(place, 1)).to(device)
        except FileNotFoundError:
            stage1 = None
    return Networks(
        model=model,
        audio_trained=record.stage > 1,
        scene_trained=not (record.stage == 3 and recipe.stage3.from_scratch),
        stage1=stage1,
    )


def _view(job: EvaluationJob, recipe: Recipe) -> ViewConfig:
    size_px = job.size_px
    if size_px is None:
        return recipe.view
    if size_px < 1 or size_px % _SIZE_MULTIPLE_PX:
        raise ValueError(f"--size-px is {size_px}: use a multiple of {_SIZE_MULTIPLE_PX}")
    return dataclasses.replace(recipe.view, size_px=size_px)
