"""Exported models: what ONNX files compute, and that wrong ones are rejected."""

import dataclasses
import hashlib

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torchaudio.transforms import Spectrogram

from aiaic import config
from aiaic.checkpointing import checkpoint
from aiaic.color import AB_SCALE
from aiaic.export import onnx_export
from aiaic.export.model_card import model_card
from aiaic.inference import Colorizer, colorizer
from aiaic.networks.model import build_model
from tests.aiaic.recipes import TINY

SEMANTICS = TINY.model.semantics


def write(folder, *, stage=3, **settings):
    """A checkpoint of random weights with strong colours."""
    folder.mkdir()
    recipe = config.override(TINY, settings)
    model = build_model(recipe.model, seed=3)
    with torch.no_grad():
        convolutions = [m for m in model.colorizer.backbone.modules() if isinstance(m, nn.Conv2d)]
        convolutions[-1].weight.mul_(20)
    record = checkpoint.Record(
        stage=stage, step=7, recipe=config.to_json(recipe), manifest_digest="d1gest", split="train",
        init=None, metrics={"validation_loss": 0.25}, curves=[{"step": 7.0}], versions={},
    )  # fmt: skip
    checkpoint.write(folder, record, model.state_dict(), {"moment": torch.zeros(1)})
    return folder


def exported(source, folder):
    folder.mkdir()
    onnx_export.write(source, folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write(tmp_path_factory.mktemp("checkpoint") / "source")


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    return exported(source, tmp_path_factory.mktemp("export") / "out")


def run(folder, name, **inputs):
    session = onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
    return session.run(None, {key: value.numpy() for key, value in inputs.items()})


def test_it_is_a_checkpoint_without_training_state(source, folder):
    assert {path.name for path in folder.iterdir()} == set(onnx_export.FILES)
    before, after = checkpoint.read_record(source), checkpoint.read_record(folder)
    assert dataclasses.replace(after, files={}) == dataclasses.replace(before, files={})
    assert after.files[checkpoint.MODEL] == before.files[checkpoint.MODEL]
    assert set(after.files) == {checkpoint.MODEL, "colorizer.onnx", "audio.onnx"}
    for name, digest in after.files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    sound = np.sin(np.arange(9000) / 3).astype(np.float32)
    one, other = (
        Colorizer(colorizer.load(f, with_sound=True), size_px=32).colorize(picture, sound)
        for f in (source, folder)
    )
    np.testing.assert_array_equal(one.rgb, other.rgb)
    assert one.relevance == other.relevance


@pytest.mark.parametrize("shape", [(1, 32, 32), (5, 64, 224)])
def test_the_colorizer_gives_lab_chroma_and_relevance(folder, shape):
    b, h, w = shape
    L, semantics = 100 * torch.rand(b, 1, h, w), torch.randn(b, SEMANTICS)
    present = torch.arange(b) % 2 == 0
    semantics[~present] = torch.nan
    ab, relevance = run(folder, "colorizer.onnx", L=L, semantics=semantics, present=present)
    with torch.inference_mode():
        expected, logits = colorizer.load(folder).colorizer(L, semantics, present)
    np.testing.assert_allclose(ab, AB_SCALE * expected, atol=5e-3)
    np.testing.assert_allclose(relevance, logits.sigmoid(), atol=1e-5)
    assert np.abs(ab).mean() > 3


def test_the_semantics_of_missing_sounds_are_ignored(folder):
    L, present = 100 * torch.rand(1, 1, 64, 64), torch.tensor([False])
    first, second = (
        run(folder, "colorizer.onnx", L=L, semantics=s, present=present)[0]
        for s in (torch.ones(1, SEMANTICS), torch.full((1, SEMANTICS), torch.nan))
    )
    np.testing.assert_array_equal(first, second)
    heard = run(folder, "colorizer.onnx", L=L, semantics=torch.ones(1, SEMANTICS), present=~present)
    assert np.abs(heard[0] - first).max() > 0.1


@pytest.mark.parametrize("shape", [(1, 8000), (4, 11_111), (2, 512)])
def test_the_audio_encoder_accepts_sounds_of_any_length(folder, shape):
    waveform = 0.3 * torch.randn(shape)
    (semantics,) = run(folder, "audio.onnx", waveform=waveform)
    with torch.inference_mode():
        expected = colorizer.load(folder).audio(waveform)
    np.testing.assert_allclose(semantics, expected, atol=1e-4)


def test_the_spectrogram_agrees_with_torchaudio():
    spectrogram = Spectrogram(n_fft=200, hop_length=80)
    waveform = torch.randn(3, 1234, generator=torch.Generator().manual_seed(0))
    convolved = onnx_export.ConvolvedSpectrogram(spectrogram)(waveform)
    torch.testing.assert_close(convolved, spectrogram(waveform), atol=1e-3, rtol=1e-4)
    with pytest.raises(ValueError, match="plain power spectrogram"):
        onnx_export.ConvolvedSpectrogram(Spectrogram(n_fft=200, power=1.0))


def test_files_contain_their_weights_and_are_reproducible(source, folder, tmp_path):
    for name in ("colorizer.onnx", "audio.onnx"):
        graph = onnx.load(folder / name, load_external_data=False)
        onnx.checker.check_model(graph)
        assert not any(tensor.external_data for tensor in graph.graph.initializer)
        assert graph.opset_import[0].version >= 18
    again = exported(source, tmp_path / "again")
    for path in folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()


def test_the_card_describes_the_model(folder):
    card = (folder / "MODEL.md").read_text()
    for part in ("Stage 3", "step 7", "`tiny`", "`compact`", "`d1gest`", "validation_loss | 0.25"):
        assert part in card
    assert "`waveform` [b t]: mono sound in [-1, 1] at 16000 Hz, ideally\n  0.5 s and at" in card
    assert "at least 512 samples" in card
    assert f"`relevance` [b {len(colorizer.load(folder).colorizer.levels)}]" in card


def test_the_card_counts_all_levels(tmp_path):
    source = write(tmp_path / "source", **{"model.guidance.levels": "all"})
    model = colorizer.load(source)
    card = model_card(checkpoint.read_record(source), model)
    assert len(model.colorizer.levels) == 3  # and not the two letters of "all"
    assert f"`relevance` [b {len(model.colorizer.levels)}]" in card


def test_stage_1_is_exported_without_an_audio_encoder(tmp_path):
    folder = exported(write(tmp_path / "source", stage=1), tmp_path / "out")
    assert {path.name for path in folder.iterdir()} == set(onnx_export.FILES) - {"audio.onnx"}
    assert "waveform" not in (folder / "MODEL.md").read_text()


def test_a_relevance_fixed_at_1_is_1(tmp_path):
    settings = {"model.guidance.always_relevant": True}
    folder = exported(write(tmp_path / "source", stage=1, **settings), tmp_path / "out")
    L, semantics, present = torch.rand(3, 1, 32, 32), torch.randn(3, SEMANTICS), torch.ones(3) > 0
    relevance = run(folder, "colorizer.onnx", L=L, semantics=semantics, present=present)[1]
    np.testing.assert_allclose(relevance, 1)


@pytest.mark.parametrize(("change", "refused"), [(0.9, True), (np.nan, True), (0.9999, False)])
def test_the_tolerance_is_a_thousandth(folder, change, refused):
    def changed(waveform):
        return change * colorizer.load(folder).audio(waveform)

    cases = [{"waveform": 0.1 * torch.randn(2, 8000)}]
    if refused:
        with pytest.raises(ValueError, match=r"^audio.onnx differs from the model by"):
            onnx_export.check(folder / "audio.onnx", changed, cases)
    else:
        onnx_export.check(folder / "audio.onnx", changed, cases)


OWN = """
import torch
from aiaic.networks.compact import Compact

class Fixed(Compact):
    def encode(self, L):
        return super().encode(L * {factor})
"""


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        ("torch.ones(int(L.shape[-1]))", r"^ONNX Runtime cannot run colorizer.onnx: "),
        ("float(L.square().mean())", r"^colorizer.onnx differs from the model by "),
        ("torch.special.bessel_j0(L)", r"^colorizer.onnx cannot be exported: .*bessel_j0"),
    ],
)
def test_a_file_that_differs_from_the_model_is_rejected(tmp_path, monkeypatch, factor, message):
    name = f"own_backbone_{hashlib.sha256(factor.encode()).hexdigest()[:8]}"
    (tmp_path / f"{name}.py").write_text(OWN.format(factor=factor))
    monkeypatch.syspath_prepend(tmp_path)
    source = write(tmp_path / "source", **{"model.backbone.name": f"{name}:Fixed"})
    with pytest.raises(ValueError, match=message) as caught:
        exported(source, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / checkpoint.RECORD).exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet34_unet", "convnext_tiny_unet"])
def test_every_backbone_can_be_exported(tmp_path, name):
    settings = {"model.backbone.name": name, "model.scene.name": "resnet18"}
    source = write(tmp_path / "source", **settings, **{"model.sound.name": "resnet18"})
    assert (exported(source, tmp_path / "out") / "colorizer.onnx").is_file()
