"""Speeds a stage up from outside: memory format, kernels, compilation, data parallelism."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from aiaic import distributed
from aiaic.stages.base import Stage
from aiaic.training.optim import TrainingConfig


def accelerate(
    stage: Stage, training: TrainingConfig, device: torch.device, *, precision: str
) -> None:
    """Choose memory format, kernels and compilation for the stage's device.

    In fp32 a run is deterministic: on the same hardware, with the same numbers of threads and
    workers, the same recipe gives the same bits, resumed or not. So fp32 on CUDA uses deterministic
    kernels, and full fp32 in convolutions, whose default is TF32. bf16 uses the fastest kernels.
    Matrix products outside autocast (mel bands) are full fp32 in both cases: they are small.

    Args:
        stage: already on the device; its parameters keep their identity, its weights their names.
        training: whether to compile.
        device: the stage's.
        precision: ``fp32`` or ``bf16``, see :func:`aiaic.training.optim.resolve_precision`.
    """
    deterministic = precision == "fp32"
    if device.type == "cuda":
        _choose_kernels(deterministic=deterministic)
        # Not on CPUs, where GroupNorm is several times slower in this format.
        stage.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    fast = device.type == "cuda" and not deterministic
    if training.compile == "yes" or (training.compile == "auto" and fast):
        compile_parts(stage)


def compile_parts(stage: Stage, backend: str = "inductor") -> None:
    """Compile a stage's tensor parts in place, at their first call; names of weights do not change.

    Shapes are fixed in training, so none is dynamic. Collectives, random draws and the spectrogram
    are not compiled, and neither is validation (:meth:`aiaic.stages.base.Stage.validate`).
    """
    for part in stage.tensor_parts():
        part.compile(backend=backend, dynamic=False)


def data_parallel(stage: Stage) -> nn.Module:
    """The stage wrapped in DDP; the stage itself if there is one worker.

    The gradients of a step are exchanged with its last micro-batch: run the others within
    :func:`no_sync`. The graph is not declared static: that would gain nothing, and in torch 2.11
    the gradients of micro-batches, or of a module that returns a dataclass, were then silently not
    exchanged.

    Args:
        stage: on its device.
    """
    if distributed.world_size() == 1:
        return stage
    # Buffers are constants that each worker computes for itself.
    return DistributedDataParallel(stage, broadcast_buffers=False, gradient_as_bucket_view=True)


def no_sync(module: nn.Module) -> AbstractContextManager[None]:
    """Within the context gradients stay on this worker: for all but a step's last micro-batch."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def _choose_kernels(*, deterministic: bool) -> None:
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first product
        # Operations without a deterministic kernel warn instead of raising.
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore
