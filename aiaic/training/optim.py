"""Settings of the loop, the learning rate, and averaged weights."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The loop, the same for all stages."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 autocast where the hardware computes in it, else fp32."""
    threads: int = 2
    """Threads of torch in each worker process, whatever runs it."""
    decode_threads: int = 2
    """Threads that read and decode samples in each worker process."""
    weight_decay: float = 0.01
    """AdamW's weight decay, on matrices and filters alone."""
    clip_norm: float = 1.0
    """Bound of the gradient's norm."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises linearly, at most a tenth of the stage."""
    ema_decay: float = 0.99
    """Decay of the averaged weights per step."""
    report_every: int = 20
    """Steps between points of the curves."""
    validate_every: int = 400
    """Steps between validations, by which the best checkpoint is chosen; the last step has one."""
    save_every: int = 400
    """Steps between checkpoints; each validation has one besides."""
    keep: int = 2
    """Newest checkpoints that stay beside the best, so that a damaged one has another before it."""
    collective_timeout_s: float = 600.0
    """How long workers wait for each other, in a step or at their start, before they are started
    anew; one of them may well read or compile longer than the others."""
    accumulate: int = 1
    """Micro-batches that a step is cut into, one after the other, so that a large batch fits a
    small device. Pairs within a batch (mismatched semantics, stage 2's negatives) are then pairs
    within a micro-batch."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Whether networks are compiled; ``auto``: on CUDA in bf16. It takes some minutes at the start
    of a stage, and changes no more than the rounding."""

    def __post_init__(self) -> None:
        for name in (
            *("threads", "decode_threads", "accumulate", "keep"),
            *("report_every", "validate_every", "save_every"),
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} counts: give 1 or more")
        if self.collective_timeout_s < 1:
            raise ValueError("training.collective_timeout_s is in seconds: give 1 or more")


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
    """AdamW over (name, parameter, share of the learning rate); each group carries its share.

    Few groups, each updated by one fused kernel: one per share and weight decay.
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
    """Exponential moving average of parameters, warmed up so that it follows early steps."""

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
        """Within the context the parameters hold the averages."""
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
    """What ``auto`` means on this hardware: bf16 only where it is computed natively."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # Without these instructions bf16 is emulated, and slower than fp32.
    return "bf16" if torch.cpu.get_capabilities().get("avx512_bf16") else "fp32"
