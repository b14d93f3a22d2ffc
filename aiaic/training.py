"""The loop: the same for every stage and for whatever runs it."""

import dataclasses
import itertools
import logging
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from aiaic import checkpoint, config, gather
from aiaic.batch import Batch
from aiaic.loader import Loader, Samples
from aiaic.networks import model as networks
from aiaic.networks import pretrained
from aiaic.networks.pretrained import ReadWeights
from aiaic.optimization import AveragedWeights, adamw, learning_rate, resolve_precision
from aiaic.plan import SampleRef
from aiaic.recipe import Recipe
from aiaic.run import Run
from aiaic.stages import build as stages
from aiaic.stages.base import StageOutput
from aiaic.starting import Init, check_same_run, load_init

log = logging.getLogger(__name__)

_SOUNDS_HEARD_FIRST = 512


class NonFiniteLossError(ValueError):
    """The loss of a batch is not finite; the weights were not touched."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a stage came to."""

    steps: int
    metrics: dict[str, float]
    """Validation metrics at the last step."""
    curves: list[dict[str, float]]
    seconds: float
    """Time spent here; a resumed run counts from its resumption."""
    samples_per_s: float
    """Training samples of this worker per second, validation and checkpoints included."""
    precision: str


def train(
    *,
    stage: int,
    recipe: Recipe,
    samples: Samples,
    run: Run,
    init: Init | None,
    device: torch.device,
    read_weights: ReadWeights = pretrained.read,
) -> Result:
    """Train one stage to its end, from its newest checkpoint where there is one.

    Args:
        stage: 1, 2 or 3.
        recipe: the whole configuration.
        samples: what to train on; stage 2 uses those with sound alone.
        run: what runs the loop; several workers need an initialized process group.
        init: checkpoint of the stage before; needed by stages 2 and 3, refused by stage 1.
        device: where to compute.
        read_weights: gives the pretrained weights that the recipe names, at the start of a run.

    Raises:
        ValueError: ``init`` is missing, of another stage, or of another architecture; the run was
            begun with another recipe or other shards; there are no samples.
        NonFiniteLossError: a loss is not finite.
    """
    torch.set_num_threads(recipe.training.threads)
    trainer = Trainer(stage, recipe, samples, run, init, device, read_weights)
    return trainer.fit()


class Trainer:
    """One stage in training: weights, averages, optimizer and position."""

    def __init__(
        self,
        stage: int,
        recipe: Recipe,
        samples: Samples,
        run: Run,
        init: Init | None,
        device: torch.device,
        read_weights: ReadWeights = pretrained.read,
    ) -> None:
        self.number, self.recipe, self.samples, self.run = stage, recipe, samples, run
        self.device = device
        self.settings = (recipe.stage1, recipe.stage2, recipe.stage3)[stage - 1]
        self.precision = resolve_precision(recipe.training.precision, device)
        model = networks.build(recipe.model, recipe.sampling.seed)
        self.origin = load_init(model, stage, recipe, init)
        self.stage = stages.build(stage, model, recipe).to(device)
        if device.type == "cuda":  # on CPUs GroupNorm is several times slower in this format
            self.stage.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        shares = self.stage.parameter_shares()
        self.names = [name for name, _, _ in shares]
        self.parameters = [parameter for _, parameter, _ in shares]
        self.optimizer = adamw(shares, recipe.training.weight_decay)
        self.averages = AveragedWeights(self.parameters, recipe.training.ema_decay)
        self.curves: list[dict[str, float]] = []
        self.step = 0
        if not self._resume():
            if self.origin is None:
                networks.load_pretrained(model, read_weights)
                self.averages = AveragedWeights(self.parameters, recipe.training.ema_decay)
            self.stage.listen(self._first_sounds())

    def fit(self) -> Result:
        """Train to the last step."""
        begun, first = time.perf_counter(), self.step
        training, metrics = self.recipe.training, dict[str, float]()
        batches = self._batches()
        module = self._distributed()
        meter = _Meter(self.device)
        while self.step < self.settings.steps:
            rate = self.rate()
            meter.add(train_step(self, module, next(batches)))
            self.step += 1
            last = self.step == self.settings.steps
            if last or self.step % training.report_every == 0:
                point = {"step": float(self.step), "learning_rate": rate}
                self.curves.append(point | meter.means())
                self.run.progress(self.step, self.curves[-1])
            stop = self.run.stop_requested()
            if last or stop or self.step % training.save_every == 0:
                metrics = self.validate()
                if metrics and self.curves:
                    self.curves[-1] |= metrics
                self.run.save(self.step, metrics, self.write)
            if stop:
                break
        batches.close()
        seconds = time.perf_counter() - begun
        done = (self.step - first) * self.recipe.sampling.batch_size / self.run.world_size
        return Result(
            steps=self.step,
            metrics=metrics,
            curves=self.curves,
            seconds=seconds,
            samples_per_s=done / seconds,
            precision=self.precision,
        )

    def rate(self) -> float:
        """The learning rate of the step under way."""
        return learning_rate(
            self.step,
            self.settings.steps,
            self.settings.learning_rate,
            self.recipe.training.warmup_steps,
        )

    def autocast(self) -> torch.autocast:
        """bf16 where the precision says so."""
        enabled = self.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean losses over the validation samples, with averaged weights; empty without samples.

        Batches are fixed, and dealt to the workers in turn: the result does not depend on how many
        there are.
        """
        chosen = self._with_sound(self.samples.validation)
        size = self.recipe.sampling.batch_size
        own = [
            sample
            for i in range(self.run.rank * size, len(chosen), self.run.world_size * size)
            for sample in chosen[i : i + size]
        ]
        if not chosen:
            return {}
        self.stage.eval()
        sums: dict[str, float] = {}
        with self.averages.applied(), self.autocast():
            for batch in self._loader().evaluation(own, size):
                output = self.stage.validate(batch.to(self.device))
                for name, values in {"loss": output.loss, **output.terms}.items():
                    sums[name] = sums.get(name, 0.0) + float(values.sum())
        self.stage.train()
        return {f"validation_{n}": s / len(chosen) for n, s in _sum_over_workers(sums).items()}

    def write(self, folder: Path) -> None:
        """Write the checkpoint of this step."""
        raw = {f"weight.{n}": p for n, p in zip(self.names, self.parameters, strict=True)}
        state = self.optimizer.state
        moments = {
            f"{moment}.{name}": state[parameter][moment]
            for name, parameter in zip(self.names, self.parameters, strict=True)
            for moment in ("exp_avg", "exp_avg_sq", "step")
        }
        with self.averages.applied():
            model = {n: v.clone() for n, v in self.stage.model.state_dict().items()}
        averages = {
            f"average.{n}": a for n, a in zip(self.names, self.averages.averages, strict=True)
        }
        last = self.curves[-1] if self.curves else {}
        record = checkpoint.Record(
            stage=self.number,
            step=self.step,
            recipe=config.to_json(self.recipe),
            manifest_digest=self.samples.manifest_digest,
            split=self.samples.split,
            init=self.origin,
            metrics={n: v for n, v in last.items() if n.startswith("validation_")},
            curves=self.curves,
            versions=checkpoint.versions(),
        )
        checkpoint.write(folder, record, model, raw | moments | averages)

    def _resume(self) -> bool:
        """Go on from the newest checkpoint; whether there is one."""
        folder = self.run.restore()
        if folder is None:
            return False
        record = checkpoint.read_record(folder)
        check_same_run(record, self.recipe, self.samples, self.number)
        self.stage.model.load_state_dict(checkpoint.read_model(folder))  # for all that is no weight
        stored = checkpoint.read_training(folder)
        with torch.no_grad():
            for name, parameter, average in zip(
                self.names, self.parameters, self.averages.averages, strict=True
            ):
                parameter.copy_(stored[f"weight.{name}"])
                average.copy_(stored[f"average.{name}"])
                self.optimizer.state[parameter] = {
                    moment: stored[f"{moment}.{name}"].to(
                        "cpu" if moment == "step" else self.device, copy=True
                    )
                    for moment in ("exp_avg", "exp_avg_sq", "step")
                }
        self.step, self.curves = record.step, list(record.curves)
        log.info("stage %d goes on at step %d", self.number, self.step)
        return True

    def _first_sounds(self) -> Iterator[Batch]:
        """The same fixed sounds on every worker, spread evenly over the training samples."""
        heard = [sample for sample in self.samples.train if sample.sound is not None]
        every = max(1, len(heard) // _SOUNDS_HEARD_FIRST)
        return self._loader().evaluation(heard[::every], self.recipe.sampling.batch_size)

    def _batches(self) -> Generator[Batch, None, None]:
        chosen = self._with_sound(self.samples.train)
        sampling, run = self.recipe.sampling, self.run
        if len(chosen) < sampling.batch_size:
            log.warning(
                "%d samples are fewer than a batch of %d: each step takes them all",
                len(chosen),
                sampling.batch_size,
            )
        return self._loader().training(chosen, sampling, run.rank, run.world_size, self.step)

    def _with_sound(self, chosen: tuple[SampleRef, ...]) -> tuple[SampleRef, ...]:
        return tuple(s for s in chosen if s.sound is not None) if self.number == 2 else chosen

    def _loader(self) -> Loader:
        needs = stages.needs(self.number, self.recipe)
        return Loader(
            read=self.samples.read,
            view=self.recipe.view,
            audio=self.recipe.model.audio if needs.sound else None,
            augmentation=self.recipe.augmentation,
            other_frame=needs.other_frame,
            threads=self.recipe.training.decode_threads,
        )

    def _distributed(self) -> nn.Module:
        if self.run.world_size == 1:
            return self.stage
        assert gather.world_size() == self.run.world_size, "the process group is not initialized"
        return DistributedDataParallel(self.stage, gradient_as_bucket_view=True)


def train_step(trainer: Trainer, module: nn.Module, batch: Batch) -> StageOutput:
    """One optimizer step.

    Raises:
        NonFiniteLossError: the loss is not finite; nothing was changed.
    """
    output = backward(trainer, module, batch)
    nn.utils.clip_grad_norm_(trainer.parameters, trainer.recipe.training.clip_norm)
    rate = trainer.rate()
    for group in trainer.optimizer.param_groups:
        group["lr"] = rate * group["share"]
    trainer.optimizer.step()
    trainer.averages.update(trainer.step)
    return output


def backward(trainer: Trainer, module: nn.Module, batch: Batch) -> StageOutput:
    """Losses of a batch, and their gradient.

    What is differentiated is the sum over this worker's samples, times workers, over the size of
    the global batch; DDP takes the mean over workers. So workers weigh by their samples, and the
    gradient is that of the mean over the global batch.

    Raises:
        NonFiniteLossError: the loss is not finite; nothing was changed.
    """
    batch = batch.to(trainer.device)
    with trainer.autocast():
        output: StageOutput = module(batch)
    loss = output.loss.sum() * (trainer.run.world_size / batch.global_size)
    if not torch.isfinite(loss):
        raise NonFiniteLossError(
            f"stage {trainer.number}, step {trainer.step + 1}: the loss is {loss.item()} on the "
            f"batch {', '.join(batch.keys)}; the weights of the step before stand. Lower "
            f"stage{trainer.number}.learning_rate, or look at these samples"
        )
    trainer.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    return output


def _sum_over_workers(sums: dict[str, float]) -> dict[str, float]:
    if gather.world_size() == 1:
        return sums
    parts: list[dict[str, float]] = [{} for _ in range(gather.world_size())]
    dist.all_gather_object(parts, sums)
    names = dict.fromkeys(itertools.chain.from_iterable(parts))
    return {name: sum(part.get(name, 0.0) for part in parts) for name in names}


class _Meter:
    """Means of a stage's terms since the last look, without a synchronization per step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, output: StageOutput) -> None:
        for name, values in {"loss": output.loss, **output.terms}.items():
            total = values.detach().float().sum()
            self.sums[name] = self.sums[name] + total if name in self.sums else total
        self.count += len(output.loss)

    def means(self) -> dict[str, float]:
        names = sorted(self.sums)
        count = torch.tensor(float(self.count), device=self.device)
        totals = torch.stack([*(self.sums[name] for name in names), count])
        if gather.world_size() > 1:
            dist.all_reduce(totals)
        *sums, samples = totals.tolist()
        self.sums, self.count = {}, 0
        return {name: value / samples for name, value in zip(names, sums, strict=True)}
