"""Training throughput: samples per second, where the time goes, and hardware utilization."""

import copy
import dataclasses
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from aiaic.loading.batch import Batch
from aiaic.stages.base import Stage

Activity = Literal["waiting", "computing", "saving"]

_PEAKS: tuple[tuple[str, dict[str, float]], ...] = (
    (r"H100 PCIe", {"bf16": 756e12, "fp32": 51e12}),
    (r"H100 NVL", {"bf16": 835e12, "fp32": 60e12}),
    (r"H200 NVL", {"bf16": 835e12, "fp32": 60e12}),
    (r"H100 \d+GB HBM3|H200", {"bf16": 989e12, "fp32": 67e12}),
    (r"B200", {"bf16": 2250e12}),
    (r"A100[- ].*", {"bf16": 312e12, "fp32": 19.5e12}),
    (r"L40S", {"bf16": 362e12, "fp32": 91.6e12}),
    (r"L4", {"bf16": 121e12, "fp32": 30.3e12}),
    (r"A10", {"bf16": 125e12, "fp32": 31.2e12}),
    (r"V100-SXM2-.*", {"fp32": 15.7e12}),
)


def flops_per_sample(stage: Stage, batch: Batch) -> float:
    """Floating-point operations of one training sample, forward and backward.

    As usual, only products and convolutions count, and a multiply-add counts as two. Counted on a
    copy without values (fake tensors), by the validation pass, which differs from training only in
    operations that are not counted: so neither the stage nor any random state changes, no other
    worker takes part, and nothing is compiled.

    Args:
        stage: as it is trained.
        batch: one of its batches.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), torch.random.fork_rng(devices=[]):
        fakes = {f.name: _fake(getattr(batch, f.name)) for f in dataclasses.fields(batch)}
        shadow = _without_values(stage)
        with FlopCounterMode(display=False, custom_mapping=_CORRECTED) as counter:
            shadow.validate(dataclasses.replace(batch, **fakes)).loss.sum().backward()
    return counter.get_total_flops() / len(batch)


def _convolution_backward(gradient: Any, x: Any, weight: Any, *others: Any, **_: Any) -> int:
    """As many operations as forward for each of both gradients; torch 2.11 ignores groups."""
    transposed, wanted = others[4], others[7]
    return conv_flop_count(x, weight, gradient, transposed) * (wanted[0] + wanted[1])


_CORRECTED = {torch.ops.aten.convolution_backward: _convolution_backward}


def peak_flops(device: torch.device, precision: str) -> float | None:
    """Peak floating-point operations per second of a device; None if unknown."""
    if device.type != "cuda":
        return None
    return peak_of(torch.cuda.get_device_name(device), precision)


def peak_of(name: str, precision: str) -> float | None:
    """The dense peak of a data-centre GPU by its CUDA device name, or None.

    Source: NVIDIA's data sheets, halved where they state a rate with sparsity. fp32 excludes TF32.
    """
    for pattern, peaks in _PEAKS:
        if re.fullmatch(rf"(NVIDIA |Tesla )?(?:{pattern})", name):
            return peaks.get(precision)
    return None


class Clock:
    """Wall time of a loop between two reports, by activity; never waits for a device.

    Args:
        flops_per_sample: see :func:`flops_per_sample`.
        peak_flops: of this worker's device; None if unknown.
        now: a monotonic clock in seconds.
    """

    def __init__(
        self,
        flops_per_sample: float,
        peak_flops: float | None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._flops_per_sample, self._peak_flops, self._now = flops_per_sample, peak_flops, now
        self._reset()

    def _reset(self) -> None:
        self._seconds: dict[Activity, float] = {"waiting": 0.0, "computing": 0.0, "saving": 0.0}
        self._samples = 0

    @contextmanager
    def measure(self, activity: Activity) -> Iterator[None]:
        """Attribute the time within the context to an activity: waiting for samples, computing (or
        enqueuing work on the device), or being blocked by a checkpoint. Other time, such as that of
        validation, is not counted.
        """
        start = self._now()
        try:
            yield
        finally:
            self._seconds[activity] += self._now() - start

    def count(self, samples: int) -> None:
        """Add samples that this worker has trained on."""
        self._samples += samples

    def rates(self) -> dict[str, float]:
        """Throughput of this worker since the last call; empty if nothing was counted.

        ``samples_per_s``; ``data_wait_share`` and ``saving_share`` of the time; and ``mfu``, the
        share of the device's peak, if that is known. Call it when the device has caught up, such as
        after reading a loss.
        """
        total, seconds, samples = sum(self._seconds.values()), self._seconds, self._samples
        self._reset()
        if total == 0 or samples == 0:
            return {}
        found = {
            "samples_per_s": samples / total,
            "data_wait_share": seconds["waiting"] / total,
            "saving_share": seconds["saving"] / total,
        }
        if self._peak_flops is not None:
            found["mfu"] = samples / total * self._flops_per_sample / self._peak_flops
        return found


def _without_values(stage: Stage) -> Stage:
    """A copy made of fake tensors, without copying any value."""
    tensors = [*stage.parameters(), *stage.buffers()]
    return copy.deepcopy(stage, {id(tensor): _fake(tensor) for tensor in tensors})


def _fake(value: Any) -> Any:
    """A tensor of the same shape on the CPU, fake within ``FakeTensorMode``; others unchanged."""
    if not isinstance(value, Tensor):
        return value
    fake = torch.empty(value.shape, dtype=value.dtype)
    if isinstance(value, nn.Parameter):
        return nn.Parameter(fake, requires_grad=value.requires_grad)
    return fake
