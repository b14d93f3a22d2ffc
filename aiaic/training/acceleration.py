"""What makes a stage fast, put on it from outside."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from aiaic import distributed as gather
from aiaic.stages.base import Stage
from aiaic.training.optim import TrainingConfig


def accelerate(
    stage: Stage, training: TrainingConfig, device: torch.device, *, precision: str
) -> None:
    """Fit a stage to the device that it lies on: memory format, kernels, compilation.

    In fp32 a run is deterministic: with as many threads and workers on the same hardware, the same
    recipe gives the same bits, resumed or not. So on CUDA fp32 takes deterministic kernels, and
    full fp32 in convolutions, whose default is TF32. In bf16 it takes the fastest ones. Matrix
    products outside of autocast (mel bands) stay in full fp32 in both: they are small.

    Args:
        stage: on the device already; its parameters keep their identity, its weights their names.
        training: says whether to compile.
        device: where it is.
        precision: ``fp32`` or ``bf16``, as :func:`aiaic.training.optim.resolve_precision` found it.
    """
    deterministic = precision == "fp32"
    if device.type == "cuda":
        _choose_kernels(deterministic=deterministic)
        # On CPUs GroupNorm is several times slower in this format.
        stage.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    fast = device.type == "cuda" and not deterministic
    if training.compile == "yes" or (training.compile == "auto" and fast):
        compile_parts(stage)


def compile_parts(stage: Stage, backend: str = "inductor") -> None:
    """Compile a stage's tensor parts in place, when they first run: names of weights stay.

    Shapes are fixed in training, so none is taken for dynamic; collectives, draws and the
    spectrogram stay outside. Validation runs uncompiled (:meth:`aiaic.stages.base.Stage.validate`).
    """
    for part in stage.tensor_parts():
        part.compile(backend=backend, dynamic=False)


def distributed(stage: Stage) -> nn.Module:
    """The stage as workers train it together; the stage itself where there is one worker.

    All gradients of a step are exchanged with its last micro-batch: run the others within
    :func:`unexchanged`. The graph is not declared static: it would gain nothing, and with torch
    2.11 the gradients of a module that returns a dataclass, or of micro-batches, were then never
    exchanged, without a word.

    Args:
        stage: on its device.
    """
    if gather.world_size() == 1:
        return stage
    # Buffers are constants, which each worker finds for itself: none is sent around.
    return DistributedDataParallel(stage, broadcast_buffers=False, gradient_as_bucket_view=True)


def unexchanged(module: nn.Module) -> AbstractContextManager[None]:
    """Within it gradients stay on this worker: for all but the last micro-batch of a step."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def _choose_kernels(*, deterministic: bool) -> None:
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = not deterministic
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by the first product
        # A warning, not an error, where an operation has no such kernel.
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # pyright: ignore
