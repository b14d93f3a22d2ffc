"""One contract for every backbone: ours, and one of another kind that is defined here."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torchvision.models import convnext_tiny, resnet18, resnet34

import aiaic
from aiaic import config
from aiaic.audio import to_float
from aiaic.loading.loader import Loader
from aiaic.networks import pretrained
from aiaic.networks.backbone import Backbone, GuidedFeature, register
from aiaic.networks.model import build_model, load_pretrained
from aiaic.training import build_stage
from tests.aiaic.recipes import TINY
from tests.aiaic.samples import tiny_samples


@register("patches")
class Patches(Backbone):
    """No U-Net and no convolution over space: patches that attend to each other."""

    def __init__(self, backbone):
        super().__init__()
        width = 2 * backbone.width
        self.embed = nn.Conv2d(1, width, 8, stride=8)
        self.attend = nn.MultiheadAttention(width, 2, batch_first=True)
        self.head = nn.Linear(width, 2)
        self.guided = (GuidedFeature("deep", width), GuidedFeature("shallow", width))

    def encode(self, L):
        return [self.embed(L)]

    def decode(self, features, guide):
        (x,) = features
        tokens = guide(0, x).flatten(2).transpose(1, 2)
        attended, _ = self.attend(tokens, tokens, tokens, need_weights=False)
        x = guide(1, (tokens + attended).transpose(1, 2).unflatten(2, x.shape[2:]))
        return self.head(F.silu(x).movedim(1, -1)).movedim(-1, 1).tanh()


ALL = ["compact", "resnet34_unet", "convnext_tiny_unet", "patches"]
"""What else is named here by test_every_backbone_of_ours_is_tested."""


def recipe_for(name, **changes):
    return config.override(
        TINY, {"model.backbone.name": name, "model.guidance.levels": "all", **changes}
    )


def batch_for(number, recipe, size=64):
    needs = build_stage.needs(number, recipe)
    samples = tiny_samples(4, size=size)
    view = dataclasses.replace(recipe.view, size_px=size)
    loader = Loader(
        read=samples.read,
        view=view,
        audio=recipe.model.audio if needs.sound else None,
        threads=1,
    )
    return next(loader.evaluation(samples.train, 4))


def test_every_backbone_of_ours_is_tested():
    code = "from aiaic.networks import backbone, model\nprint(*backbone._BACKBONES)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) == set(ALL) - {"patches"}


@pytest.mark.parametrize("name", ALL)
def test_a_backbone_keeps_its_contract(name):
    """Guided as it says, at any resolution, sample by sample, and unguided bit for bit."""
    colorizer = build_model(recipe_for(name).model, 0).colorizer.eval()
    backbone = colorizer.backbone
    seen: list[tuple[int, int]] = []

    def guide(level, x):
        seen.append((level, x.shape[1]))
        return x

    with torch.inference_mode():
        L = 100 * torch.rand(2, 1, 64, 96)
        unguided = backbone.decode(backbone.encode(L / 50 - 1), guide)
        assert seen == [(i, feature.channels) for i, feature in enumerate(backbone.guided)]
        assert unguided.shape[:2] == (2, 2)
        assert unguided.abs().max() <= 1
        semantics = F.normalize(torch.randn(2, TINY.model.semantics), dim=1)
        both, logits = colorizer(L, semantics, torch.tensor([True, True]))
        assert both.shape == (2, 2, 64, 96)
        assert logits.shape == (2, len(backbone.guided))
        first, _ = colorizer(L[:1], semantics[:1], torch.tensor([True]))
        torch.testing.assert_close(both[:1], first, atol=1e-4, rtol=1e-3)
        one, _ = colorizer(L, semantics, torch.tensor([True, False]))
        plain = F.interpolate(unguided, (64, 96), mode="bilinear", align_corners=False)
        torch.testing.assert_close(one[1], plain[1], atol=0, rtol=0)
        assert not torch.allclose(one[0], plain[0], atol=1e-4)


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("name", ALL)
def test_a_backbone_trains_a_step(name, number):
    """Every weight of the colorizer gets a gradient, and a step lowers the loss."""
    recipe = recipe_for(name)
    stage = build_stage.build(number, build_model(recipe.model, 0), recipe)
    batch = batch_for(number, recipe)
    optimizer = torch.optim.SGD((p for p in stage.parameters() if p.requires_grad), 0.05)
    before = stage(batch).loss.mean()
    before.backward()
    colorizer = stage.model.colorizer
    lacking = [name for name, p in colorizer.named_parameters() if p.grad is None]
    assert not lacking
    optimizer.step()
    assert torch.isfinite(before)
    assert stage(batch).loss.mean() < before


def test_what_is_built_around_backbones_names_none():
    """Only the backbones themselves, the module that lets them register, and the recipes."""
    folder = Path(aiaic.__file__).parent
    known = {
        "recipes",
        "backbone",
        "compact",
        "unet",
        "resnet_unet",
        "convnext_unet",
        "model",
        "encoders",
    }
    for file in folder.rglob("*.py"):
        if file.stem not in known:
            text = file.read_text()
            assert not [name for name in ALL[1:3] if name in text], file


TORCHVISION = {
    "model.backbone": ("resnet34_unet", resnet34),
    "model.scene": ("resnet18", resnet18),
    "model.sound": ("resnet18", resnet18),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("part", TORCHVISION)
def test_torchvisions_weights_are_taken_over(part, suffix, tmp_path):
    name, build = TORCHVISION[part]
    state = build(weights=None).state_dict()
    state["bn1.running_mean"] += 3
    place = store(state, tmp_path / f"weights{suffix}")
    model = build_model(config.override(TINY, {
        f"{part}.name": name, f"{part}.weights": place,
        "model.guidance.levels": [0],
    }).model, 0)  # fmt: skip
    load_pretrained(model)
    trunk = {
        "model.backbone": lambda: model.colorizer.backbone.trunk,
        "model.scene": lambda: model.scene.trunk,
        "model.sound": lambda: model.audio.trunk,
    }[part]()
    assert torch.equal(trunk.bn1.running_mean, state["bn1.running_mean"])
    assert torch.equal(trunk.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])
    colours = state["conv1.weight"]
    first = colours if part == "model.scene" else colours.sum(1, keepdim=True)
    torch.testing.assert_close(trunk.conv1.weight, first)


def test_convnext_takes_torchvisions_weights(tmp_path):
    state = convnext_tiny(weights=None).state_dict()
    place = store(state, tmp_path / "weights.safetensors")
    model = build_model(recipe_for(
        "convnext_tiny_unet", **{"model.backbone.weights": place}
    ).model, 0)  # fmt: skip
    load_pretrained(model)
    trunk = model.colorizer.backbone.trunk
    assert torch.equal(trunk[7][0].block[0].weight, state["features.7.0.block.0.weight"])
    torch.testing.assert_close(
        trunk[0][0].weight, state["features.0.0.weight"].sum(1, keepdim=True)
    )


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        ("nowhere.pth", "no weights at"),
        ("ResNet99_Weights.IMAGENET1K_V1", "neither a torchvision enum"),
        ("compact.safetensors", "accepts no pretrained weights"),
    ],
)
def test_weights_that_cannot_be_loaded_are_named(weights, complaint, tmp_path):
    if weights == "compact.safetensors":
        weights = store({"a": torch.zeros(1)}, tmp_path / weights)
    model = build_model(config.override(TINY.model, {"backbone.weights": weights}), 0)
    with pytest.raises((ValueError, FileNotFoundError), match=complaint):
        load_pretrained(model)


@pytest.mark.parametrize("content", [b"", b"not weights", None])
def test_a_file_that_holds_no_weights_is_refused(content, tmp_path):
    path = tmp_path / "weights.pth"
    if content is None:
        torch.save({"model": nn.Linear(1, 1)}, path)  # a pickled module
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.pth"):
        pretrained.read(str(path))


def test_checkpoints_do_not_need_the_pretrained_weights():
    """Only the start of a run reads them: a model is built without the file."""
    changed = config.override(
        TINY.model, {"sound.name": "resnet18", "sound.weights": "gone.safetensors"}
    )
    samples = tiny_samples(2)
    model = build_model(changed, 0).eval()
    loader = Loader(read=samples.read, view=TINY.view, audio=TINY.model.audio, threads=1)
    batch = next(loader.evaluation(samples.train, 2))
    assert model.audio(to_float(batch.waveform)).shape == (2, TINY.model.semantics)


def store(state, path):
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    return str(path)
