"""Settings of the loop, the optimizer, the learning rate schedule, and averaged weights."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from aiaic.config import AtLeast0, AtLeast1, Decay, NonNegative, Positive, Timeout


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The training loop, the same for all stages."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 autocast where the hardware has native bf16 arithmetic, otherwise fp32."""
    threads: AtLeast1 = 2
    """PyTorch threads in each worker process."""
    decode_threads: AtLeast1 = 2
    """Threads that read and decode samples in each worker process."""
    weight_decay: NonNegative = 0.01
    """AdamW's weight decay, applied to matrices and filters only."""
    clip_norm: Positive = 1.0
    """Largest norm of the gradient; longer ones are scaled down to it."""
    warmup_steps: AtLeast0 = 50
    """Steps over which the learning rate rises linearly, at most a tenth of the stage."""
    ema_decay: Decay = 0.99
    """Decay per step of the averaged weights, which are the ones evaluated and exported."""
    report_every: AtLeast1 = 20
    """Steps between points of the curves."""
    validate_every: AtLeast1 = 400
    """Steps between validations, which select the best checkpoint; the last step is validated."""
    save_every: AtLeast1 = 400
    """Steps between checkpoints; each validation is followed by one as well."""
    keep: AtLeast1 = 2
    """How many of the newest checkpoints to keep, beside the best; with 2 a damaged one has a
    predecessor."""
    collective_timeout_s: Timeout = 600.0
    """How long workers wait for each other, in a step or at startup, before all are restarted; one
    of them may take much longer than the others to read or compile."""
    accumulate: AtLeast1 = 1
    """Micro-batches into which each step is split, so that a large batch fits a small device. Pairs
    of samples (mismatched semantics, stage 2's negatives) are then formed within a micro-batch."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Whether to compile the networks; ``auto``: on CUDA in bf16. Takes some minutes at the start
    of a stage; results differ by rounding only."""


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then half a cosine down to zero at ``steps``."""
    warmup = min(warmup, steps // 10)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def adamw(
    parameters: Sequence[tuple[str, nn.Parameter, float]], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW over (name, parameter, share of the learning rate); each group stores its share.

    Parameters with the same share and weight decay form one group, updated by one fused kernel.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for _, parameter, share in parameters:
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((share, decay), []).append(parameter)
    settings = [
        {"params": members, "share": share, "weight_decay": decay}
        for (share, decay), members in groups.items()
    ]
    return torch.optim.AdamW(settings, lr=0.0, betas=(0.9, 0.99), fused=True)


class AveragedWeights:
    """Exponential moving average of parameters; its decay warms up, to follow early steps."""

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters)
        self.averages = [p.detach().clone() for p in self.parameters]
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the averages towards the parameters after optimizer step ``step`` (from 0)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)  # pyright: ignore

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the context the parameters are the averages."""
        raw = [p.detach().clone() for p in self.parameters]
        self._assign(self.averages)
        try:
            yield
        finally:
            self._assign(raw)

    @torch.no_grad()
    def _assign(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)


def resolve_precision(
    precision: Literal["auto", "fp32", "bf16"], device: torch.device
) -> Literal["fp32", "bf16"]:
    """The precision that ``auto`` selects on a device: bf16 only if it is native."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # Without these instructions bf16 is emulated, which is slower than fp32.
    return "bf16" if torch.cpu.get_capabilities().get("avx512_bf16") else "fp32"
