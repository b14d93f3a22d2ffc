"""The batches of one stage on one worker: for training, validation and measuring."""

import logging
from collections.abc import Generator, Iterator

from aiaic.loading import sampler
from aiaic.loading.batch import Batch
from aiaic.loading.loader import Loader
from aiaic.loading.prefetch import prefetch_to_device
from aiaic.training import build_stage
from aiaic.training.context import TrainContext
from aiaic.training.spec import StageSpec

log = logging.getLogger(__name__)

_NORMALIZATION_SOUNDS = 512


class StageBatches:
    """Reads the samples that a stage can use.

    Args:
        spec: the stage, its samples, and the device that training batches go to.
        context: rank and world size.

    Raises:
        ValueError: there are no samples, or too many workers or micro-batches for them.
    """

    def __init__(self, spec: StageSpec, context: TrainContext) -> None:
        recipe, needs = spec.recipe, build_stage.needs(spec.stage, spec.recipe)
        self._recipe, self._context, self._device = recipe, context, spec.device
        self._train = needs.usable(spec.samples.train)
        self._validation = needs.usable(spec.samples.validation)
        self._parts = recipe.training.accumulate
        self.size = sampler.check(
            len(self._train), recipe.sampling, context.world_size, self._parts
        )
        """Samples of a step, over all workers."""
        self._loader = Loader(
            read=spec.samples.read,
            view=recipe.view,
            audio=recipe.model.audio if needs.sound else None,
            augmentation=recipe.augmentation,
            other_frame=needs.other_frame,
            threads=recipe.training.decode_threads,
            pinned=spec.device.type == "cuda",
        )

    def training(self, start: int) -> Generator[Batch, None, None]:
        """This worker's micro-batches from step ``start`` on, on the device, without end."""
        sampling, context = self._recipe.sampling, self._context
        if self.size < sampling.batch_size:
            log.warning(
                "%d samples are fewer than a batch of %d: each step uses them all",
                len(self._train),
                sampling.batch_size,
            )
        batches = self._loader.training(
            self._train, sampling, context.rank, context.world_size, start, self._parts
        )
        return prefetch_to_device(batches, self._device)

    @property
    def validation_count(self) -> int:
        """Samples that all workers validate on."""
        return len(self._validation)

    def validation(self) -> Iterator[Batch]:
        """This worker's share of the validation samples.

        Batches are fixed and dealt to the workers in turn, so the result does not depend on the
        number of workers.
        """
        size, context = self._recipe.evaluated_at_once, self._context
        own = [
            sample
            for i in range(context.rank * size, len(self._validation), context.world_size * size)
            for sample in self._validation[i : i + size]
        ]
        return self._loader.evaluation(own, size)

    def sounds(self) -> Iterator[Batch]:
        """Fixed sounds for normalization, the same on every worker, spread evenly over training."""
        with_sound = [sample for sample in self._train if sample.sound is not None]
        every = max(1, len(with_sound) // _NORMALIZATION_SOUNDS)
        return self._loader.evaluation(with_sound[::every], self._recipe.evaluated_at_once)

    def example(self) -> Batch:
        """A batch of one sample."""
        return next(self._loader.evaluation(self._train[:1], 1))
