"""Collect a tensor from all workers in the order of the global batch."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from aiaic.batch import Batch


def world_size() -> int:
    """Number of workers that train together; 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(x: Tensor, batch: Batch) -> Tensor:
    """Rows ``x [b ...]`` of every worker, as ``[global_size ...]`` in the global batch's order.

    Differentiable: the gradient of a worker's rows is the sum over what all workers did with them.
    Workers may own different numbers of rows.
    """
    if world_size() == 1:
        return x
    counts = _all_gather(torch.tensor([len(batch)], device=x.device)).flatten().tolist()
    order = torch.argsort(_join(batch.position, counts))
    return _Join.apply(x, counts)[order]


def _all_gather(x: Tensor) -> Tensor:
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.stack(parts)


def _join(x: Tensor, counts: list[int]) -> Tensor:
    """Concatenate workers' rows; collectives want equal shapes, so rows are padded on the way."""
    padded = x.new_zeros(max(counts), *x.shape[1:])
    padded[: len(x)] = x
    return torch.cat([part[:n] for part, n in zip(_all_gather(padded), counts, strict=True)])


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: list[int]) -> Tensor:
        ctx.counts = counts
        if x.dtype == torch.bool:
            return _join(x.to(torch.uint8), counts).to(torch.bool)
        return _join(x, counts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        start = sum(ctx.counts[: dist.get_rank()])
        return total[start : start + ctx.counts[dist.get_rank()]], None
