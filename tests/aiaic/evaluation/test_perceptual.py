"""LPIPS, FID and KID against torchmetrics and NumPy, with random weights and offline."""

import socket

import numpy as np
import pytest
import torch
import torch_fidelity.feature_extractor_inceptionv3 as fidelity
from safetensors.torch import save_file
from torchmetrics.functional.image import lpips as library
from torchmetrics.functional.image.lpips import learned_perceptual_image_patch_similarity
from torchmetrics.image.fid import NoTrainInceptionV3
from torchvision.models import alexnet

from aiaic.evaluation import perceptual
from aiaic.evaluation.perceptual import Features, Inception, Lpips, fid, kid
from aiaic.networks import pretrained


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something asks the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def pictures(count=3, size=48, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator) * 255
    fine = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return fine.to(torch.uint8)


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return alexnet(weights=None).features


@pytest.fixture(scope="module")
def weights(network):
    return {f"features.{name}": value for name, value in network.state_dict().items()}


def test_pictures_too_small_for_the_network_have_no_lpips(weights):
    small = pictures(size=31)
    assert Lpips(weights, "weights")(small, small).isnan().all()


def test_lpips_agrees_with_torchmetrics(network, weights, tmp_path, monkeypatch):
    save_file(weights, tmp_path / "alexnet.safetensors")
    read = pretrained.read(str(tmp_path / "alexnet.safetensors"))
    ours = Lpips(read, "alexnet.safetensors")(pictures(seed=1), pictures(seed=2))
    monkeypatch.setattr(library, "_get_tv_model_features", lambda *_, **__: network)
    theirs = learned_perceptual_image_patch_similarity(
        pictures(seed=1) / 255, pictures(seed=2) / 255, reduction="none", normalize=True
    )
    torch.testing.assert_close(ours, theirs)
    assert ours.min() > 0
    assert Lpips(weights, "w")(pictures(1), pictures(1)).tolist() == [0.0]


def test_weights_of_another_network_are_rejected():
    with pytest.raises(ValueError, match=r"'net\.pth' does not hold torchvision's AlexNet weights"):
        Lpips({"conv.weight": torch.zeros(3)}, "net.pth")
    with pytest.raises(ValueError, match=r"'net\.pth' does not hold FID's InceptionV3 weights"):
        Inception({"conv.weight": torch.zeros(3)}, "net.pth")


def test_inception_agrees_with_torchmetrics(tmp_path, monkeypatch):
    class Random(NoTrainInceptionV3):
        def load_state_dict(self, state_dict, strict=True, assign=False):
            return None

    monkeypatch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        random = Random("inception-v3-compat", ["2048"])
    file = tmp_path / "inception.pth"
    torch.save(random.state_dict(), file)
    weights = pretrained.read(str(file))
    reference = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(file))
    ours = Inception(weights, "inception.pth")(pictures(2))
    torch.testing.assert_close(ours, reference(pictures(2)))
    assert ours.shape == (2, 2048)
    assert not torch.equal(ours[0], ours[1])


def features(count, seed, size=8):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator)
    return torch.randn(count, size, generator=generator) @ mixing + seed


def test_fid_is_the_distance_of_two_gaussians():
    truth, results = features(50, 0), features(40, 1)
    first, second = truth.double().numpy(), results.double().numpy()
    covariance = [np.cov(part, rowvar=False) for part in (first, second)]
    values, vectors = np.linalg.eigh(covariance[0])
    root = vectors * np.sqrt(values) @ vectors.T
    crossed = np.sqrt(np.linalg.eigvalsh(root @ covariance[1] @ root)).sum()
    expected = np.square(first.mean(0) - second.mean(0)).sum()
    expected += np.trace(covariance[0]) + np.trace(covariance[1]) - 2 * crossed
    assert fid(truth, results) == pytest.approx(expected, rel=1e-6)
    assert fid(truth, truth) == pytest.approx(0, abs=1e-6)


def test_kid_is_the_unbiased_discrepancy():
    truth, results = features(30, 0), features(30, 1)

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    first, second = truth.double().numpy(), results.double().numpy()
    n = len(first)
    within = sum(
        (kernel(part, part).sum() - np.trace(kernel(part, part))) / (n * (n - 1))
        for part in (first, second)
    )
    expected = within - 2 * kernel(first, second).mean()
    before = torch.get_rng_state()
    assert kid(truth, results, seed=0) == pytest.approx(expected, rel=1e-3)
    assert torch.equal(before, torch.get_rng_state())


def test_the_seed_chooses_the_subsets_of_many_pictures(monkeypatch):
    monkeypatch.setattr(perceptual, "_KID_SUBSET", 20)
    truth, results = features(30, 0), features(30, 1)
    assert kid(truth, results, seed=3) == kid(truth, results, seed=3)
    assert kid(truth, results, seed=3) != kid(truth, results, seed=4)


def test_features_are_joined_and_chosen():
    parts = [
        Features(keys=("b", "a"), rows=torch.tensor([[1.0], [2.0]])),
        Features(keys=("c",), rows=torch.tensor([[3.0]])),
    ]
    whole = Features.join(parts)
    assert whole.keys == ("b", "a", "c")
    assert whole.of(["c", "b"]).tolist() == [[3.0], [1.0]]
