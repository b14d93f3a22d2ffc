"""Pretrained weights by path, URI and enum, as ``train`` looks for them."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from workflows.artifacts import pretrained_weights

STATE = {"conv1.weight": torch.arange(6.0).reshape(2, 3)}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("as_uri", [False, True])
def test_weights_are_read_from_a_place(suffix: str, as_uri: bool, tmp_path: Path) -> None:
    path = tmp_path / f"some weights{suffix}"
    if suffix == ".safetensors":
        save_file(STATE, path)
    else:
        torch.save(STATE, path)
    found = pretrained_weights.read(path.as_uri() if as_uri else str(path))
    assert found.keys() == STATE.keys()
    assert torch.equal(found["conv1.weight"], STATE["conv1.weight"])


@pytest.mark.parametrize(
    ("place", "kind", "complaint"),
    [
        ("nowhere.pth", FileNotFoundError, "no weights at 'nowhere.pth'"),
        ("file:///nowhere/w.safetensors", FileNotFoundError, "nowhere/w.safetensors"),
        ("ResNet34_Weights.NOTHING", ValueError, "neither a torchvision enum"),
        ("resnet34", ValueError, "neither a torchvision enum"),
    ],
)
def test_weights_that_are_not_there_are_named(
    place: str, kind: type[Exception], complaint: str
) -> None:
    for look in (pretrained_weights.check, pretrained_weights.read):
        with pytest.raises(kind, match=complaint):
            look(place)


def test_torchvisions_weights_are_known_without_a_download() -> None:
    pretrained_weights.check("ResNet34_Weights.IMAGENET1K_V1")
    pretrained_weights.check("ConvNeXt_Tiny_Weights.DEFAULT")


def test_a_damaged_file_is_named_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=re.escape(path.as_uri())):
        pretrained_weights.read(path.as_uri())
