"""How fast does each stage train on a GPU, what is each optimization worth, and what feeds it?

Parts, in this order (`--only` takes some of them):
  stages   stages 1, 2, 3 of `resnet34_unet` and 1, 3 of `convnext_tiny_unet`, eager and compiled
  without  stage 1 of `resnet34_unet` with all optimizations but one
  data     the loader alone, and end to end: loader, transfer and training; blocked by a checkpoint
  sweep    stage 1 of `resnet34_unet` at batches of 32 to 512, eager, and compiled at the ends
  kernels  where a step's time goes
What does not fit into `--limit-s` is left out and named. Beside the repository it needs torch,
torchvision, torchaudio, numpy, jaxtyping, pillow, pydantic, safetensors and simplejpeg alone.

    PYTHONPATH=. python benchmarks/gpu_speed.py --out gpu_speed.json
    PYTHONPATH=. python benchmarks/gpu_speed.py --device cpu --quick
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NEEDED = ("torch", "torchvision", "torchaudio", "numpy", "jaxtyping", "PIL", "pydantic",
          "safetensors", "simplejpeg")  # fmt: skip
if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
    sys.exit(f"install what is missing first: {', '.join(missing)}")

import torch  # noqa: E402
from gpu_steps import (  # noqa: E402
    Choices,
    Training,
    encoded_samples,
    kernels,
    synchronize,
    synthetic_batch,
    waits,
)

from aiaic import config, recipes  # noqa: E402
from aiaic.checkpointing.async_saver import StagedTensors  # noqa: E402
from aiaic.loading.loader import Loader  # noqa: E402
from aiaic.loading.prefetch import prefetch_to_device  # noqa: E402
from aiaic.training import build_stage  # noqa: E402
from aiaic.training.recipe import Recipe  # noqa: E402

PARTS = ("stages", "without", "data", "sweep", "kernels")
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, help="JSON, written again after each measurement")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a measurement")
    parser.add_argument("--limit-s", type=float, default=540.0, help="begin nothing after this")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="that decode")
    parser.add_argument("--quick", action="store_true", help="`compact`, few steps: a trial")
    options = parser.parse_args()
    Benchmark(options).run()


class Benchmark:
    """All measurements; rows are printed and stored as they come."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device = options, torch.device(options.device)
        self.started, self.rows = time.perf_counter(), list[Row]()
        self.batch = 4 if options.quick else options.batch
        self.seconds, self.ahead = (0.0, 1) if options.quick else (options.seconds, 10)
        self.backend = "aot_eager" if options.quick else "inductor"
        cuda = self.device.type == "cuda"
        self.report: Row = {
            "device": torch.cuda.get_device_name(self.device) if cuda else platform.machine(),
            "cpus": os.cpu_count(),
            "torch": torch.__version__,
            "batch": self.batch,
            "rows": self.rows,
        }
        print(json.dumps({k: v for k, v in self.report.items() if k != "rows"}), flush=True)

    def run(self) -> None:
        for part in self.options.only:
            for name, measure in getattr(self, part)():
                if time.perf_counter() - self.started > self.options.limit_s:
                    self._add({"part": part, "name": name, "left_out": "no time"})
                    continue
                try:
                    for row in measure():
                        self._add({"part": part, "name": name, **row})
                except torch.OutOfMemoryError:
                    self._add({"part": part, "name": name, "left_out": "no memory"})
        print(f"{time.perf_counter() - self.started:.0f} s")

    def _add(self, row: Row) -> None:
        self.rows.append(row)
        figures = "  ".join(f"{k} {v}" for k, v in row.items() if k not in ("part", "name"))
        print(f"{row['part']:8} {row['name']:44} {figures}", flush=True)
        if self.options.out is not None:
            self.options.out.write_text(json.dumps(self.report, indent=1) + "\n")

    def _recipe(self, name: str) -> Recipe:
        if not self.options.quick:
            return recipes.load(name)
        small = {"view.size_px": 32, "model.audio.clip_s": 0.5, "model.backbone.width": 8,
                 "stage1.scene_view": "frame"}  # fmt: skip
        return config.override(recipes.load("compact"), small)

    def _choices(self, **off: bool) -> Choices:
        return Choices(**{"backend": self.backend} | off)  # pyright: ignore

    def _trained(
        self, stage: int, recipe: Recipe, choices: Choices, batch: int | None = None
    ) -> Iterator[Row]:
        shown = synthetic_batch(stage, recipe, batch or self.batch, self.device)
        training = Training(stage, recipe, self.device, choices)
        yield training.measure(lambda: shown, self.seconds, self.ahead)

    def stages(self) -> Iterator[tuple[str, Any]]:
        asked = [("resnet34_unet", 1), ("resnet34_unet", 2), ("resnet34_unet", 3),
                 ("convnext_tiny_unet", 1), ("convnext_tiny_unet", 3)]  # fmt: skip
        asked = asked[:3] if self.options.quick else asked
        for (name, stage), compiled in itertools.product(asked, (False, True)):
            title = f"{name} stage {stage} {'compiled' if compiled else 'eager'}"
            choices, recipe = self._choices(compiled=compiled), self._recipe(name)
            yield title, lambda s=stage, r=recipe, c=choices: self._trained(s, r, c)

    def without(self) -> Iterator[tuple[str, Any]]:
        recipe = self._recipe("resnet34_unet")
        for name in ("foreach_average", "fused_adamw", "channels_last", "bf16"):
            choices = self._choices(**{name: False})
            title = f"without {name}" + (" (fp32, TF32 in convolutions)" * (name == "bf16"))
            yield title, lambda c=choices: self._trained(1, recipe, c)

    def sweep(self) -> Iterator[tuple[str, Any]]:
        recipe = self._recipe("resnet34_unet")
        sizes = (2, 4) if self.options.quick else (32, 64, 128, 256, 512)
        cases = [(size, False) for size in sizes] + [(sizes[0], True), (sizes[-1], True)]
        for size, compiled in cases:
            title = f"batch {size} {'compiled' if compiled else 'eager'}"
            choices = self._choices(compiled=compiled)
            yield title, lambda b=size, c=choices: self._trained(1, recipe, c, b)

    def data(self) -> Iterator[tuple[str, Any]]:
        recipe = self._recipe("resnet34_unet")
        for stage in (1, 3):
            yield f"stage {stage}", lambda s=stage: self._fed(s, recipe)

    def _fed(self, stage: int, recipe: Recipe) -> Iterator[Row]:
        with self._loading(stage, recipe, torch.device("cpu")) as batches:
            for _ in range(2):
                next(batches)
            started, count = time.perf_counter(), 0
            while count < 2 or time.perf_counter() - started < self.seconds:
                next(batches)
                count += 1
            rate = count * self.batch / (time.perf_counter() - started)
        yield {"what": "loader alone", "threads": self.options.threads, "img_per_s": round(rate, 1)}
        training = Training(stage, recipe, self.device, self._choices())
        with self._loading(stage, recipe, self.device) as batches:
            figures = training.measure(lambda: next(batches), self.seconds, self.ahead)
        yield {"what": "loader, transfer and training", **figures}
        yield {"what": "blocked by a checkpoint", **self._blocked(training)}

    @contextlib.contextmanager
    def _loading(self, stage: int, recipe: Recipe, device: torch.device) -> Iterator[Any]:
        sampling = {"sampling.batch_size": self.batch, "sampling.streams": min(self.batch, 64)}
        recipe, needs = config.override(recipe, sampling), build_stage.needs(stage, recipe)
        samples = encoded_samples(recipe, 20 * self.batch)
        loader = Loader(
            read=samples.read,
            view=recipe.view,
            audio=recipe.model.audio if needs.sound else None,
            augmentation=recipe.augmentation,
            other_frame=needs.other_frame,
            threads=self.options.threads,
            pinned=device.type == "cuda",
        )
        made = loader.training(samples.train, recipe.sampling, 0, 1, 0)
        with contextlib.closing(prefetch_to_device(made, device)) as batches:
            yield batches

    def _blocked(self, training: Training) -> Row:
        state = training.optimizer.state
        tensors = {str(i): p for i, p in enumerate(training.parameters)}
        tensors |= {f"a{i}": a for i, a in enumerate(training.averages.averages)}
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors |= {f"{moment}{i}": state[p][moment] for i, p in enumerate(training.parameters)}
        synchronize(self.device)
        started = time.perf_counter()
        copies = StagedTensors(tensors, [])
        blocked_s = time.perf_counter() - started
        synchronize(self.device)
        on_device_s = time.perf_counter() - started
        copies.tensors()
        return {
            "gb": round(sum(t.nbytes for t in tensors.values()) / 1e9, 2),
            "blocked_ms": round(1000 * blocked_s, 2),
            "device_ms": round(1000 * on_device_s, 2),
            "to_host_ms": round(1000 * (time.perf_counter() - started - on_device_s), 1),
        }

    def kernels(self) -> Iterator[tuple[str, Any]]:
        recipe = self._recipe("resnet34_unet")
        for compiled in (False, True):
            choices = self._choices(compiled=compiled)
            title = "compiled" if compiled else "eager"
            yield title, lambda c=choices: self._kernels(recipe, c)

    def _kernels(self, recipe: Recipe, choices: Choices) -> Iterator[Row]:
        batches = [synthetic_batch(1, recipe, self.batch, self.device)] * 3
        training = Training(1, recipe, self.device, choices)
        training.step(batches[0])
        yield {"what": "waits for the device in a step", "at": waits(training, batches[0])}
        yield from kernels(training, batches, 12)


if __name__ == "__main__":
    main()
