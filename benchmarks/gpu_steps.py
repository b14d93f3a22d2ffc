"""What `gpu_speed.py` measures: training steps with each optimization on or off."""

import dataclasses
import gc
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
from torch import nn

from aiaic.loading.batch import Batch, mirrored
from aiaic.loading.loader import Samples
from aiaic.loading.sampler import SampleRef
from aiaic.networks.model import build_model
from aiaic.training import acceleration, build_stage
from aiaic.training.optim import AveragedWeights, adamw
from aiaic.training.recipe import Recipe
from aiaic.training.throughput import flops_per_sample, peak_flops


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
    """Which optimizations are on."""

    channels_last: bool = True
    bf16: bool = True
    compiled: bool = True
    fused_adamw: bool = True
    foreach_average: bool = True
    backend: str = "inductor"


class Training:
    """A stage in training, on batches that are given."""

    def __init__(self, stage: int, recipe: Recipe, device: torch.device, choices: Choices) -> None:
        _forget()
        self.recipe, self.device, self.choices, self.step_number = recipe, device, choices, 0
        torch.backends.cudnn.benchmark = True
        model = build_model(recipe.model, 0)
        self.stage = build_stage.build(stage, model, recipe).to(device)
        if choices.channels_last and device.type == "cuda":
            self.stage.to(memory_format=torch.channels_last)
        if choices.compiled:
            acceleration.compile_parts(self.stage, choices.backend)
        shares = self.stage.parameter_shares()
        self.parameters = [parameter for _, parameter, _ in shares]
        if choices.fused_adamw:
            self.optimizer = adamw(shares, recipe.training.weight_decay)
        else:
            self.optimizer = torch.optim.AdamW(self.parameters, foreach=False)
        self.averages = AveragedWeights(self.parameters, recipe.training.ema_decay)

    def step(self, batch: Batch) -> None:
        """As the loop does it, without waiting for the device."""
        batch = mirrored(batch.to(self.device), flip=self.recipe.view.flip)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.choices.bf16):
            output = self.stage(batch)
        output.loss.mean().backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-6
        self.optimizer.step()
        if self.choices.foreach_average:
            self.averages.update(self.step_number)
        else:
            with torch.no_grad():
                for average, parameter in zip(self.averages.averages, self.parameters, strict=True):
                    average.lerp_(parameter, 0.01)
        self.step_number += 1

    def measure(
        self, batches: Callable[[], Batch], seconds: float, ahead: int = 5
    ) -> dict[str, float | None]:
        """Rate over some seconds after a warm-up, memory and share of the peak.

        Args:
            batches: gives the next one.
            seconds: at least so many; all that were started count.
            ahead: steps without waiting for the device, as in the loop; so many warm up.
        """
        started = time.perf_counter()
        for _ in range(ahead):
            batch = batches()
            self.step(batch)
        synchronize(self.device)
        warm_up_s = time.perf_counter() - started
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started, steps = time.perf_counter(), 0
        while not steps or time.perf_counter() - started < seconds:
            for _ in range(ahead):
                batch = batches()
                self.step(batch)
            synchronize(self.device)
            steps += ahead
        per_s = steps * len(batch) / (time.perf_counter() - started)
        flops = flops_per_sample(self.stage, batch)
        peak = peak_flops(self.device, "bf16" if self.choices.bf16 else "fp32")
        return {
            "img_per_s": round(per_s, 1),
            "ms_per_step": round(1000 * len(batch) / per_s, 2),
            "mfu_percent": None if peak is None else round(100 * per_s * flops / peak, 2),
            "gflop_per_img": round(flops / 1e9, 3),
            "peak_memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2)
            if self.device.type == "cuda"
            else None,
            "warm_up_s": round(warm_up_s, 1),
        }


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _forget() -> None:
    """Give back what earlier measurements compiled and allocated."""
    torch._dynamo.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def synthetic_batch(stage: int, recipe: Recipe, size: int, device: torch.device) -> Batch:
    """A batch of noise, on the device, laid out as the loader does."""
    needs, px = build_stage.needs(stage, recipe), recipe.view.size_px

    def pictures() -> torch.Tensor:
        shape = (size, px, px, 3)
        return torch.randint(256, shape, dtype=torch.uint8, device=device).permute(0, 3, 1, 2)

    sound_shape = (size, recipe.model.audio.samples)
    sounds = torch.randint(-9999, 9999, sound_shape, dtype=torch.int16, device=device)
    return Batch(
        keys=tuple(str(i) for i in range(size)),
        video=torch.arange(size, device=device),
        position=torch.arange(size, device=device),
        picture=pictures(),
        other_picture=pictures() if needs.other_frame else None,
        waveform=sounds if needs.sound else None,
        has_sound=torch.ones(size, dtype=torch.bool, device=device),
        draws=torch.rand(size, 19, device=device),
        global_size=size,
    )


def encoded_samples(recipe: Recipe, count: int) -> Samples:
    """Samples in memory: two frames of 4:3 each as JPEG of quality 90, and sound."""
    generator, px = np.random.default_rng(0), recipe.view.size_px
    blobs: dict[str, bytes] = {"picture": b"", "sound": b""}
    made: dict[str, list[tuple[int, int]]] = {"picture": [], "sound": []}
    for _ in range(32):
        coarse = generator.integers(0, 256, (px // 16, px // 12, 3), dtype=np.uint8)
        picture = coarse.repeat(16, 0).repeat(16, 1)
        picture = picture // 2 + generator.integers(0, 30, picture.shape, dtype=np.uint8)
        jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(picture), 90)
        sound = generator.integers(-9999, 9999, recipe.model.audio.samples).astype("<i2")
        for member, content in (("picture", jpeg), ("sound", sound.tobytes())):
            made[member].append((len(blobs[member]), len(content)))
            blobs[member] += content
    refs = tuple(
        SampleRef(
            key=f"{i:06d}", youtube_id=f"{i:06d}", label="", shard=str(i % 16),
            pictures=(made["picture"][i % 32], made["picture"][(i + 1) % 32]),
            sound=made["sound"][i % 32],
        )
        for i in range(count)
    )  # fmt: skip

    def read(shard: str, member: str, offset: int, size: int) -> bytes:
        return blobs[member][offset : offset + size]

    return Samples(
        train=refs,
        validation=(),
        read=read,
        sample_rate_hz=recipe.model.audio.sample_rate_hz,
        manifest_digest="",
        split="train",
    )


def kernels(training: Training, batches: Sequence[Batch], count: int) -> Iterator[dict[str, Any]]:
    """The device's kernels that take most of a step's time."""
    for batch in batches:
        training.step(batch)
    synchronize(training.device)
    cuda = training.device.type == "cuda"
    kind = torch.profiler.ProfilerActivity
    activities = [kind.CUDA] if cuda else [kind.CPU]
    with torch.profiler.profile(activities=activities, acc_events=True) as trace:
        for batch in batches:
            training.step(batch)
        synchronize(training.device)
    attribute = "self_device_time_total" if cuda else "self_cpu_time_total"
    events = sorted(trace.key_averages(), key=lambda event: -getattr(event, attribute))
    total = sum(getattr(event, attribute) for event in events)
    for event in events[:count]:
        spent = getattr(event, attribute)
        yield {
            "kernel": event.key[:90],
            "ms_per_step": round(spent / 1000 / len(batches), 3),
            "share_percent": round(100 * spent / max(total, 1e-9), 1),
            "calls": event.count // len(batches),
        }


def waits(training: Training, batch: Batch) -> list[str]:
    """Where a step on CUDA, its second or a later one, makes the host wait for the device."""
    if training.device.type != "cuda":
        return []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            training.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]
