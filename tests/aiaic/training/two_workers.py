"""Gradients of one worker and of two, which are processes that import this file by its name."""

import itertools
from pathlib import Path

import torch
import torch.distributed as dist

from aiaic import config
from aiaic.training import loop
from aiaic.training.acceleration import distributed
from aiaic.training.context import LocalContext
from aiaic.training.loop import Trainer
from aiaic.training.resume import Init
from tests.aiaic.recipes import TINY
from tests.aiaic.samples import tiny_samples

CPU = torch.device("cpu")


def gradients(trainer: Trainer, rank: int, world_size: int) -> dict[str, torch.Tensor]:
    """Gradients of the first step, before clipping."""
    trainer.run.rank, trainer.run.world_size = rank, world_size
    module = distributed(trainer.stage)
    batches = trainer._batches()
    batch = next(itertools.islice(batches, 1))
    batches.close()
    loop.backward(trainer, module, batch, 1)
    return {
        name: parameter.grad.clone()
        for name, parameter in zip(trainer.learner.names, trainer.learner.parameters, strict=True)
        if parameter.grad is not None
    }


def trainer_of(stage: int, init: str | None, folder: Path) -> Trainer:
    start = None if init is None else Init(folder=Path(init), place=init)
    recipe = config.override(TINY, {"sampling.streams": 3})  # workers own 2 and 1 of them
    return Trainer(stage, recipe, tiny_samples(32), LocalContext(folder), start, CPU)


def worker(rank: int, folder: Path, inits: dict[int, str | None]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    found = {
        stage: gradients(trainer_of(stage, init, folder / f"{stage}-{rank}"), rank, 2)
        for stage, init in inits.items()
    }
    if rank == 0:
        torch.save(found, folder / "gradients.pt")
    dist.barrier()
    dist.destroy_process_group()
