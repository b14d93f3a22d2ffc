"""Collectives over all workers of a training; without a process group, this process alone."""

import itertools
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from aiaic.loading.batch import Batch


def world_size() -> int:
    """Number of workers that train together; 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_by_name(values: Mapping[str, float]) -> dict[str, float]:
    """Sum of each named value over all workers; a worker may lack some names."""
    if world_size() == 1:
        return dict(values)
    parts: list[dict[str, float]] = [{} for _ in range(world_size())]
    dist.all_gather_object(parts, dict(values))
    names = dict.fromkeys(itertools.chain.from_iterable(parts))
    return {name: sum(part.get(name, 0.0) for part in parts) for name in names}


def gather(x: Tensor, batch: Batch) -> Tensor:
    """The rows ``x [b ...]`` of all workers as ``[global_size ...]``, in global batch order.

    Differentiable: the gradient of a worker's rows is the sum over what all workers computed from
    them. Workers may own different numbers of rows. Each worker writes its rows into zeros, which
    are then summed: all shapes follow from the batch, so the host never waits for the device.
    """
    if world_size() == 1:
        return x
    return _Gather.apply(x, batch.position, batch.global_size)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, position: Tensor, global_size: int) -> Tensor:
        ctx.save_for_backward(position)
        dtype = torch.uint8 if x.dtype == torch.bool else x.dtype
        rows = x.new_zeros(global_size, *x.shape[1:], dtype=dtype)
        rows[position] = x.to(dtype)
        dist.all_reduce(rows)
        return rows.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        (position,) = ctx.saved_tensors
        return total[position], None, None
