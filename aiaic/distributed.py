"""Collect a tensor from all workers in the order of the global batch."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from aiaic.loading.batch import Batch


def world_size() -> int:
    """Number of workers that train together; 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(x: Tensor, batch: Batch) -> Tensor:
    """Rows ``x [b ...]`` of every worker, as ``[global_size ...]`` in the global batch's order.

    Differentiable: the gradient of a worker's rows is the sum over what all workers did with them.
    Workers may own different numbers of rows. Each puts its own into zeros, and these are summed:
    the shapes follow from the batch alone, so that nobody waits for the device to tell them.
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
