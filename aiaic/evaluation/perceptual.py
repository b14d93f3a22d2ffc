"""LPIPS, FID and KID: perceptual metrics from pretrained networks whose weights the user provides.

Networks and formulas are those of torchmetrics. Nothing is downloaded: networks are built without
weights and filled from given tensors.
"""

import dataclasses
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import (
    _NoTrainLpips,  # pyright: ignore[reportPrivateUsage] (the public class downloads)
)
from torchmetrics.image.fid import FrechetInceptionDistance, NoTrainInceptionV3
from torchmetrics.image.kid import KernelInceptionDistance

LPIPS_LEAST_PX = 32
"""Smallest picture side that survives AlexNet's downsampling."""
FEATURES = 2048
"""Number of Inception's features."""
FID_LEAST_CLIPS = FEATURES
"""With fewer pictures, the covariance of their features is singular."""

_KID_SUBSET = 1000
_KID_SUBSETS = 100


class Lpips:
    """LPIPS with AlexNet (Zhang et al. 2018): 0 for equal pictures."""

    def __init__(self, weights: Mapping[str, Tensor], name: str) -> None:
        """Args:
        weights: weights of torchvision's AlexNet; torchmetrics ships the linear heads.
        name: name of their file, for errors.

        Raises:
            ValueError: the weights are those of another network.
        """
        self._network = _NoTrainLpips(net="alex", pnet_rand=True)
        wanted = {key: f"features.{key.split('.', 1)[1]}" for key in self._network.net.state_dict()}
        try:
            self._network.net.load_state_dict({key: weights[w] for key, w in wanted.items()})
        except (KeyError, RuntimeError):
            raise ValueError(f"'{name}' does not hold torchvision's AlexNet weights") from None

    def to(self, device: torch.device) -> "Lpips":
        """Move to a device."""
        self._network.to(device)
        return self

    def __call__(
        self, prediction: UInt8[Tensor, "b 3 h w"], truth: UInt8[Tensor, "b 3 h w"]
    ) -> Float[Tensor, " b"]:
        """Distance of each pair of pictures; NaN if they are smaller than 32 px."""
        if min(truth.shape[-2:]) < LPIPS_LEAST_PX:
            return torch.full((len(truth),), torch.nan, device=truth.device)
        pair = [picture.float() / 127.5 - 1 for picture in (prediction, truth)]  # in [-1, 1]
        return cast(Tensor, self._network(*pair)).flatten()


class Inception:
    """Features of the InceptionV3 that FID and KID are defined by."""

    def __init__(self, weights: Mapping[str, Tensor], name: str) -> None:
        """Args:
        weights: weights of torch-fidelity or pytorch-fid.
        name: name of their file, for errors.

        Raises:
            ValueError: the weights are those of another network.
        """
        # The library unpickles a file, so it gets one that was written here.
        with tempfile.NamedTemporaryFile(prefix="aiaic-", suffix=".pth") as file:
            torch.save(dict(weights), file.name)
            try:
                self._network = NoTrainInceptionV3(
                    "inception-v3-compat", [str(FEATURES)], file.name
                )
            except RuntimeError:
                raise ValueError(
                    f"'{name}' does not hold FID's InceptionV3 weights (torch-fidelity's "
                    "weights-inception-2015-12-05, or pytorch-fid's)"
                ) from None

    def to(self, device: torch.device) -> "Inception":
        """Move to a device."""
        self._network.to(device)
        return self

    def __call__(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        """Features of pictures, resized to 299 px."""
        return self._network(rgb)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perception:
    """The networks of perceptual metrics whose weights were given."""

    lpips: Lpips | None = None
    inception: Inception | None = None

    def to(self, device: torch.device) -> "Perception":
        """Move all networks to a device."""
        for network in (self.lpips, self.inception):
            if network is not None:
                network.to(device)
        return self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """Inception's features of some clips' pictures, on the CPU."""

    keys: tuple[str, ...]
    rows: Float[Tensor, "n f"]

    @classmethod
    def join(cls, parts: "Sequence[Features]") -> "Features":
        """Concatenate the features of parts, in order."""
        keys = tuple(key for part in parts for key in part.keys)
        return cls(keys=keys, rows=torch.cat([part.rows for part in parts]))

    def of(self, keys: Sequence[str]) -> Float[Tensor, "m f"]:
        """The features of some clips."""
        row = {key: row for row, key in enumerate(self.keys)}
        return self.rows[[row[key] for key in keys]]


def fid(truth: Float[Tensor, "n f"], results: Float[Tensor, "m f"]) -> float:
    """Fréchet distance of two sets of features (Heusel et al. 2017), in double precision."""
    distance = FrechetInceptionDistance(feature=_Identity(truth.shape[1])).set_dtype(torch.float64)
    distance.update(truth.double(), real=True)
    distance.update(results.double(), real=False)
    return distance.compute().item()


def kid(truth: Float[Tensor, "n f"], results: Float[Tensor, "m f"], *, seed: int) -> float:
    """Kernel distance of two sets of features (Bińkowski et al. 2018).

    The mean over 100 random subsets of 1,000 features, or over a single set if there are fewer. The
    estimator is unbiased, so the result may be negative.

    Args:
        truth: features of true pictures.
        results: features of results.
        seed: seed of the subsets.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save")
        torch.manual_seed(seed)
        fewest = min(len(truth), len(results))
        distance = KernelInceptionDistance(
            feature=_Identity(truth.shape[1]),
            subsets=_KID_SUBSETS if fewest > _KID_SUBSET else 1,
            subset_size=min(_KID_SUBSET, fewest),
        )
        distance.update(truth, real=True)
        distance.update(results, real=False)
        return distance.compute()[0].item()


class _Identity(nn.Module):
    """Replaces torchmetrics' feature extractor, because the features are already computed."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.num_features = features

    def forward(self, features: Tensor) -> Tensor:
        return features
