"""Counted operations, peaks by name, the loop's clock, and traces."""

import dataclasses
import gzip
import json
from pathlib import Path

import pytest
import torch
from torch._dynamo.utils import counters

from aiaic.loading.batch import Batch
from aiaic.networks.model import Model, build_model
from aiaic.stages.base import Stage, StageOutput
from aiaic.training import acceleration, profiling
from aiaic.training.throughput import Clock, flops_per_sample, peak_flops, peak_of
from tests.aiaic.recipes import TINY
from tests.aiaic.training.two_devices import batches, stage_of


class FewLayers(Stage):
    """A frozen, a trained and a depthwise convolution, and a product."""

    def __init__(self, model: Model) -> None:
        frozen, trained = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 5, 3, padding=1)
        linear = torch.nn.Linear(5, 7)
        depthwise = torch.nn.Conv2d(5, 5, 3, padding=1, groups=5)
        super().__init__(model, [(trained, 1.0), (depthwise, 1.0), (linear, 1.0)])
        self.depthwise = depthwise
        self.frozen, self.trained, self.linear = frozen.requires_grad_(False), trained, linear

    def tensor_parts(self) -> list[torch.nn.Module]:
        return []

    def forward(self, batch: Batch) -> StageOutput:
        raise AssertionError

    def validate(self, batch: Batch) -> StageOutput:
        x = self.depthwise(self.trained(self.frozen(batch.picture.float())))
        return StageOutput(loss=self.linear(x.mean((2, 3))).sum(1), terms={})


def test_operations_are_those_counted_by_hand():
    stage = FewLayers(build_model(TINY.model, 0))
    batch = next(batches(1))
    pixels = batch.picture.shape[2] * batch.picture.shape[3]
    frozen = 2 * pixels * 3 * 4 * 9  # forward alone
    trained = 2 * pixels * 4 * 5 * 9 * 2  # forward, and the weights' gradient
    depthwise = 2 * pixels * 5 * 9 * 3  # forward, the input's gradient, and the weights'
    linear = 2 * 5 * 7 * 3
    assert flops_per_sample(stage, batch) == frozen + trained + depthwise + linear


@pytest.mark.parametrize("number", [1, 2, 3])
def test_counting_leaves_everything_as_it_was(number):
    stage, batch = stage_of(number), next(batches(number))
    acceleration.compile_parts(stage, "eager")  # would look at what it runs
    before = {name: value.clone() for name, value in stage.state_dict().items()}
    counters.clear()
    random = torch.get_rng_state()
    assert flops_per_sample(stage, batch) == flops_per_sample(stage, batch) > 1e6
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(stage.state_dict()[name], value) for name, value in before.items())
    assert all(p.grad is None and p.device.type == "cpu" for p in stage.parameters())
    assert stage.training
    assert not counters["frames"]


def test_a_stage_that_hears_longer_computes_more():
    batch = next(batches(2))
    longer = dataclasses.replace(batch, waveform=batch.waveform.repeat(1, 4))
    assert flops_per_sample(stage_of(2), longer) > flops_per_sample(stage_of(2), batch)


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA H200", "bf16", 989e12),
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA H100 NVL", "bf16", 835e12),
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5e12),
        ("NVIDIA A100 80GB PCIe", "bf16", 312e12),
        ("NVIDIA A10", "bf16", 125e12),
        ("NVIDIA A10G", "bf16", None),
        ("NVIDIA L4", "bf16", 121e12),
        ("NVIDIA L40", "bf16", None),
        ("NVIDIA L40S", "bf16", 362e12),
        ("NVIDIA B200", "fp32", None),
        ("Tesla V100-SXM2-16GB", "bf16", None),
        ("Tesla V100-SXM2-16GB", "fp32", 15.7e12),
        ("NVIDIA GeForce RTX 4090", "bf16", None),
    ],
)
def test_peaks_are_those_of_the_very_model(name, precision, peak):
    assert peak_of(name, precision) == peak


def test_cpus_have_no_known_peak():
    assert peak_flops(torch.device("cpu"), "fp32") is None


def test_the_clock_tells_waiting_from_computing():
    seconds = [0.0]
    clock = Clock(100.0, 1e4, now=lambda: seconds[0])

    def spend(activity: str | None, length: float) -> None:
        if activity is None:
            seconds[0] += length
            return
        with clock.measure(activity):
            seconds[0] += length

    assert clock.rates() == {}
    for activity, length in (("waiting", 1.0), ("computing", 6.0), ("saving", 1.0), (None, 9.0)):
        spend(activity, length)
    clock.count(80)
    assert clock.rates() == {
        "samples_per_s": 10.0,
        "data_wait_share": 0.125,
        "saving_share": 0.125,
        "mfu": pytest.approx(0.1),
    }
    assert clock.rates() == {}
    unknown = Clock(100.0, None, now=lambda: seconds[0])
    with unknown.measure("computing"):
        seconds[0] += 1.0
    unknown.count(3)
    assert unknown.rates() == {
        "samples_per_s": 3.0, "data_wait_share": 0.0, "saving_share": 0.0
    }  # fmt: skip


def test_a_trace_holds_the_steps_that_are_kept(tmp_path: Path):
    with profiling.traced(tmp_path / "profiles", 0) as profiler:
        for step in range(12):
            with torch.profiler.record_function(f"step {step + 1}"):
                torch.ones(2) + 1
            profiler.step()
    (file,) = (tmp_path / "profiles").iterdir()
    assert file.name == "profile-rank0.json.gz"
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    found = {event["name"] for event in events if event["name"].startswith("step ")}
    assert found == {"step 8", "step 9", "step 10"}
