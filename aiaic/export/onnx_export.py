"""Exports a checkpoint: its weights, record and model card, and ONNX files that need no PyTorch.

The exported folder is a checkpoint without training state, and can be used wherever a checkpoint is
expected. ``colorizer.onnx`` and ``audio.onnx`` are checked against the model before they are
published.
"""

import copy
import dataclasses
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from jaxtyping import Bool, Float
from onnxruntime.capi import (
    onnxruntime_pybind11_state as onnx_errors,  # pyright: ignore[reportAttributeAccessIssue]
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.onnx.errors import OnnxExporterError
from torchaudio.transforms import Spectrogram

from aiaic.checkpointing import checkpoint
from aiaic.color import AB_SCALE
from aiaic.export.model_card import AUDIO, CARD, COLORIZER, model_card, shortest_sound
from aiaic.inference import colorizer
from aiaic.networks.model import Colorizer, Model

FILES = (checkpoint.MODEL, COLORIZER, AUDIO, CARD, checkpoint.RECORD)
"""All files that an export may contain."""

TOLERANCE = 1e-3
"""Largest allowed difference from the model, relative to the largest value (at least 1)."""
_OPSET = 18

_TRACED_SHAPE = (2, 64, 96)
_OTHER_SHAPES = ((1, 96, 96), (3, 32, 160), (2, 128, 64))

_RUNTIME_ERRORS = (
    onnx_errors.Fail,
    onnx_errors.InvalidArgument,
    onnx_errors.InvalidGraph,
    onnx_errors.InvalidProtobuf,
    onnx_errors.NotImplemented,
    onnx_errors.RuntimeException,
)

Inputs = Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Graph:
    """A part of the model that becomes an ONNX file."""

    name: str
    module: nn.Module
    """The reference: takes inputs by name and returns tensors in the order of ``outputs``."""
    exportable: nn.Module
    """The same without operations that ONNX does not have."""
    outputs: tuple[str, ...]
    axes: Mapping[str, Mapping[int, str]]
    """Dynamic axes of inputs and outputs, by name."""
    traced: Inputs
    """Inputs to trace the module with."""
    others: Sequence[Inputs]
    """Inputs of other shapes, to check the file with."""


def write(source: Path, folder: Path) -> None:
    """Export the checkpoint ``source`` into the folder ``folder``, the record last.

    Raises:
        FileNotFoundError: ``source`` is not a checkpoint.
        ValueError: it is damaged, or its ONNX files would not compute what the model computes.
    """
    record = checkpoint.read_record(source)
    model = colorizer.load(source)
    graphs = [_colorizer_graph(model), *([_audio_graph(model)] if record.stage > 1 else [])]
    for graph in graphs:
        _export(graph, folder / graph.name)
        check(folder / graph.name, graph.module, graph.others)
    shutil.copyfile(source / checkpoint.MODEL, folder / checkpoint.MODEL)
    (folder / CARD).write_text(model_card(record, model), encoding="utf-8")
    names = (checkpoint.MODEL, *(graph.name for graph in graphs))
    checkpoint.write_record(folder, record, names)


def check(file: Path, module: Callable[..., Any], cases: Sequence[Inputs]) -> None:
    """Compare an ONNX file with the module it was exported from, on inputs of several shapes.

    Raises:
        ValueError: it does not run, or differs by more than the tolerance.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as ours
    try:
        session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
        for inputs in cases:
            arrays = {key: value.numpy() for key, value in inputs.items()}
            found = session.run(None, arrays)
            with torch.inference_mode():
                expected = module(**inputs)
            expected = expected if isinstance(expected, tuple) else (expected,)
            for one, other in zip(expected, found, strict=True):
                _require_equal(one.numpy(), np.asarray(other), file.name)
    except _RUNTIME_ERRORS as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"ONNX Runtime cannot run {file.name}: {reason}") from None


class ConvolvedSpectrogram(nn.Module):
    """torchaudio's power spectrogram as a convolution, which every ONNX runtime supports."""

    def __init__(self, spectrogram: Spectrogram) -> None:
        super().__init__()
        self.size = spectrogram.n_fft
        self.hop = spectrogram.hop_length
        plain = (spectrogram.power, spectrogram.normalized, spectrogram.pad) == (2.0, False, 0)
        if not plain or spectrogram.win_length != self.size:
            raise ValueError("only a plain power spectrogram can be exported")
        turns = torch.arange(self.size // 2 + 1)[:, None] * torch.arange(self.size) % self.size
        angle = 2 * torch.pi * turns.double() / self.size
        filters = torch.cat((angle.cos(), angle.sin())) * spectrogram.get_buffer("window").double()
        self.register_buffer("filters", filters.float()[:, None])

    def forward(self, waveform: Float[Tensor, "b t"]) -> Float[Tensor, "b frequencies frames"]:
        half = self.size // 2
        padded = F.pad(waveform[:, None], (half, half), mode="reflect")
        real, imaginary = F.conv1d(padded, self.get_buffer("filters"), stride=self.hop).chunk(2, 1)
        return real.square() + imaginary.square()


class _ColorizerInLab(nn.Module):
    """The colorizer with ``ab`` in Lab units, and relevance in [0, 1]."""

    def __init__(self, colorizer: Colorizer) -> None:
        super().__init__()
        self.colorizer = colorizer

    def forward(
        self,
        L: Float[Tensor, "b 1 h w"],
        semantics: Float[Tensor, "b d"],
        present: Bool[Tensor, " b"],
    ) -> tuple[Float[Tensor, "b 2 h w"], Float[Tensor, "b levels"]]:
        ab, logits = self.colorizer(L, semantics, present)
        return ab * AB_SCALE, logits.sigmoid()


def _colorizer_graph(model: Model) -> _Graph:
    generator = torch.Generator().manual_seed(0)

    def inputs(shape: tuple[int, int, int]) -> Inputs:
        """Random brightness and contrast; every other sound is missing, with NaN semantics."""
        b, h, w = shape
        present = torch.arange(b) % 2 == b % 2
        semantics = F.normalize(torch.randn(b, model.config.semantics, generator=generator))
        semantics[~present] = float("nan")
        low, high = 100 * torch.rand(2, b, 1, 1, 1, generator=generator)
        L = low + (high - low) * torch.rand(b, 1, h, w, generator=generator)
        return {"L": L, "semantics": semantics, "present": present}

    picture = {0: "batch", 2: "height", 3: "width"}
    row = {0: "batch"}
    module = _ColorizerInLab(model.colorizer).eval()
    return _Graph(
        name=COLORIZER,
        module=module,
        exportable=module,
        outputs=("ab", "relevance"),
        axes={"L": picture, "semantics": row, "present": row, "ab": picture, "relevance": row},
        traced=inputs(_TRACED_SHAPE),
        others=[inputs(shape) for shape in _OTHER_SHAPES],
    )


def _audio_graph(model: Model) -> _Graph:
    generator = torch.Generator().manual_seed(0)
    samples = model.config.audio.samples
    lengths = samples + samples // 3, samples - 77, shortest_sound(model.config.audio)

    def inputs(count: int, length: int) -> Inputs:
        """Noise of random loudness."""
        loudness = 0.3 * torch.rand(count, 1, generator=generator)
        return {"waveform": loudness * torch.randn(count, length, generator=generator)}

    exportable = copy.deepcopy(model.audio)
    for name, module in list(exportable.named_modules()):
        if isinstance(module, Spectrogram):
            exportable.set_submodule(name, ConvolvedSpectrogram(module))
    return _Graph(
        name=AUDIO,
        module=model.audio,
        exportable=exportable,
        outputs=("semantics",),
        axes={"waveform": {0: "batch", 1: "samples"}, "semantics": {0: "batch"}},
        traced=inputs(2, samples),
        others=[inputs(1, samples), *(inputs(2, length) for length in lengths)],
    )


def _export(graph: _Graph, file: Path) -> None:
    """Write the ONNX file, with its weights.

    Uses the tracing exporter: it keeps sizes dynamic without declaring them multiples of anything,
    and takes a second where the newer, symbolic one takes half a minute.

    Raises:
        ValueError: the module has an operation that ONNX does not have.
    """
    try:
        with warnings.catch_warnings():
            # It warns that it is deprecated, and of sizes it may fix, which the check would find.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph.exportable,
                (),
                file,
                kwargs=dict(graph.traced),
                input_names=list(graph.traced),
                output_names=list(graph.outputs),
                dynamic_axes=graph.axes,
                opset_version=_OPSET,
                dynamo=False,
            )
    except OnnxExporterError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{graph.name} cannot be exported: {reason}") from None


def _require_equal(expected: np.ndarray, found: np.ndarray, name: str) -> None:
    if expected.shape != found.shape:
        raise ValueError(
            f"{name} returns shape {list(found.shape)}, but the model returns "
            f"{list(expected.shape)}: does the backbone fix a size?"
        )
    worst = float(np.abs(found - expected).max())
    if not worst <= TOLERANCE * max(1.0, float(np.abs(expected).max())):  # also fails for NaN
        raise ValueError(f"{name} differs from the model by {worst:.2g}: does it fix a size?")
