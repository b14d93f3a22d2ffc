"""Gradients of one worker and of two over several steps; processes import this file by its name."""

import copy
import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch._dynamo.utils
import torch.distributed as dist

from aiaic import config
from aiaic.loading.batch import Batch
from aiaic.loading.loader import Loader
from aiaic.networks.model import build_model
from aiaic.stages.base import Stage
from aiaic.training import acceleration, build_stage
from tests.aiaic.recipes import TINY
from tests.aiaic.samples import tiny_samples

RECIPE = config.override(TINY, {"sampling.streams": 3})  # workers own 2 and 1 of them
Gradients = list[list[torch.Tensor]]


def stage_of(number: int) -> Stage:
    return build_stage.build(number, build_model(TINY.model, 0), TINY)


def batches(number: int, rank: int = 0, world_size: int = 1) -> Iterator[Batch]:
    samples, needs = tiny_samples(32), build_stage.needs(number, TINY)
    loader = Loader(
        read=samples.read,
        view=TINY.view,
        audio=TINY.model.audio if needs.sound else None,
        other_frame=needs.other_frame,
    )
    found = loader.training(samples.train, RECIPE.sampling, rank, world_size, 0)
    yield from itertools.islice(found, 6)
    found.close()


def gradients(
    number: int, accumulate: int, rank: int = 0, world_size: int = 1, backend: str | None = None
) -> Gradients:
    """Gradients of all steps that six batches make; the weights move a little after each.

    They move by drawn amounts, not by their gradients: rounding differs with the number of workers
    and with the processor, and would add up from step to step.
    """
    stage, moves = stage_of(number), torch.Generator().manual_seed(number)
    if backend is not None:
        acceleration.compile_parts(stage, backend)
    module = acceleration.data_parallel(stage)
    parameters = [parameter for _, parameter, _ in stage.parameter_shares()]
    result: Gradients = []
    for i, batch in enumerate(batches(number, rank, world_size)):
        last = (i + 1) % accumulate == 0
        if last:
            step_gradients(module, batch, world_size / accumulate)
            result.append([p.grad.clone() for p in parameters])
            with torch.no_grad():
                for p in parameters:
                    p.add_(1e-3 * (2 * torch.rand(p.shape, generator=moves) - 1))
                    p.grad = None
        else:
            with acceleration.no_sync(module):
                step_gradients(module, batch, world_size / accumulate)
    return result


def compiled(number: int) -> dict[str, Any]:
    """What compiling changes: frames that dynamo looked at after each of six steps and a validation
    with a batch of another size, names of weights, and the losses beside those without."""
    stage, plain = stage_of(number), stage_of(number)
    acceleration.compile_parts(stage, "aot_eager")
    frames: list[int] = []
    losses: list[tuple[torch.Tensor, torch.Tensor]] = []
    torch._dynamo.reset()
    for i, batch in enumerate(batches(number)):
        if i == 3:
            stage.eval()
            with torch.no_grad():
                losses.append(tuple(s.validate(rows(batch, 5)).loss for s in (stage, plain)))
            stage.train()
        losses.append(tuple(s(batch).loss.detach() for s in (stage, plain)))
        frames.append(sum(torch._dynamo.utils.counters["frames"].values()))
    copied = copy.deepcopy(stage)  # compiled parts are no obstacle
    assert copied.state_dict().keys() == plain.state_dict().keys()
    return {
        "frames": frames,
        "names": [list(s.state_dict()) for s in (stage, plain)],
        "losses": losses,
    }


def rows(batch: Batch, count: int) -> Batch:
    """The first rows of a batch of one worker."""
    cut = {
        field.name: value[:count]
        for field in dataclasses.fields(batch)
        if isinstance(value := getattr(batch, field.name), torch.Tensor | tuple)
    }
    cut["position"] = torch.arange(count)
    return dataclasses.replace(batch, **cut, global_size=count)


def step_gradients(module: torch.nn.Module, batch: Batch, weight: float) -> None:
    output = module(batch)
    (output.loss.sum() * weight / batch.global_size).backward()


def worker(rank: int, folder: Path, asked: list[tuple[int, int, str | None]]) -> None:
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    found = [gradients(number, count, rank, 2, backend) for number, count, backend in asked]
    torch.save(found, folder / f"gradients{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        torch.save([compiled(number) for number in (1, 2, 3)], folder / "compiled.pt")
