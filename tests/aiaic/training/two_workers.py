"""Gradients of one worker and of two, which are processes that import this file by its name."""

import itertools
from pathlib import Path

import torch
import torch.distributed as dist

from aiaic import config
from aiaic.training import loop
from aiaic.training.acceleration import data_parallel
from aiaic.training.trainer import Trainer
from tests.aiaic.recipes import TINY
from tests.aiaic.samples import tiny_samples
from tests.aiaic.training.tiny_training import trainer_of

RECIPE = config.override(TINY, {"sampling.streams": 3})  # workers own 2 and 1 of them


def gradients(
    folder: Path, stage: int, init: Path | None, rank: int = 0, world_size: int = 1
) -> dict[str, torch.Tensor]:
    """Gradients of the first step, before clipping."""
    trainer = trainer_of(folder, stage, init, recipe=RECIPE, samples=tiny_samples(32))
    trainer.context.rank, trainer.context.world_size = rank, world_size
    model = data_parallel(trainer.stage)
    batches = trainer.batches.training(0)
    batch = next(itertools.islice(batches, 1))
    batches.close()
    loop.backward(trainer, model, batch, 1)
    return _named_gradients(trainer)


def _named_gradients(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in zip(trainer.state.names, trainer.state.parameters, strict=True)
        if parameter.grad is not None
    }


def worker(rank: int, folder: Path, inits: dict[int, Path | None]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    found = {
        stage: gradients(folder / f"{stage}-{rank}", stage, init, rank, 2)
        for stage, init in inits.items()
    }
    if rank == 0:
        torch.save(found, folder / "gradients.pt")
    dist.barrier()
    dist.destroy_process_group()
