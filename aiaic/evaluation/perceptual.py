"""LPIPS, FID and KID: what pretrained networks see of a difference, with weights given as files.

The networks and formulas are torchmetrics' own. Nothing is ever downloaded: the networks are built
empty and filled from given tensors.
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
"""Smaller pictures shrink to nothing in AlexNet."""
FEATURES = 2048
"""Size of Inception's features."""
FID_LEAST_CLIPS = FEATURES
"""With fewer pictures the covariance of their features is singular."""

_KID_SUBSET = 1000
_KID_SUBSETS = 100


class Lpips:
    """LPIPS of AlexNet (Zhang et al. 2018): 0 for equal pictures.

    Args:
        weights: torchvision's AlexNet; the linear heads come with torchmetrics.
        name: of their file, for errors.

    Raises:
        ValueError: the weights are of another network.
    """

    def __init__(self, weights: Mapping[str, Tensor], name: str) -> None:
        self._network = _NoTrainLpips(net="alex", pnet_rand=True)
        wanted = {key: f"features.{key.split('.', 1)[1]}" for key in self._network.net.state_dict()}
        try:
            self._network.net.load_state_dict({key: weights[w] for key, w in wanted.items()})
        except (KeyError, RuntimeError):
            raise ValueError(f"'{name}' holds no weights of torchvision's AlexNet") from None

    def to(self, device: torch.device) -> "Lpips":
        """The same on a device."""
        self._network.to(device)
        return self

    def __call__(
        self, prediction: UInt8[Tensor, "b 3 h w"], truth: UInt8[Tensor, "b 3 h w"]
    ) -> Float[Tensor, " b"]:
        """Distance of each pair of 8-bit pictures, which the network sees in [-1, 1]; NaN where
        they are under 32 px."""
        if min(truth.shape[-2:]) < LPIPS_LEAST_PX:
            return torch.full((len(truth),), torch.nan, device=truth.device)
        pair = [picture.float() / 127.5 - 1 for picture in (prediction, truth)]
        return cast(Tensor, self._network(*pair)).flatten()


class Inception:
    """Features of the InceptionV3 by which FID and KID are defined.

    Args:
        weights: those of torch-fidelity or pytorch-fid.
        name: of their file, for errors.

    Raises:
        ValueError: the weights are of another network.
    """

    def __init__(self, weights: Mapping[str, Tensor], name: str) -> None:
        # The library reads a file, and as a pickle: it gets one that was written here.
        with tempfile.NamedTemporaryFile(prefix="aiaic-", suffix=".pth") as file:
            torch.save(dict(weights), file.name)
            try:
                self._network = NoTrainInceptionV3(
                    "inception-v3-compat", [str(FEATURES)], file.name
                )
            except RuntimeError:
                raise ValueError(
                    f"'{name}' holds no weights of FID's InceptionV3 (torch-fidelity's "
                    "weights-inception-2015-12-05, or pytorch-fid's)"
                ) from None

    def to(self, device: torch.device) -> "Inception":
        """The same on a device."""
        self._network.to(device)
        return self

    def __call__(self, rgb: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b f"]:
        """Features of 8-bit pictures, which are resized to 299 px."""
        return self._network(rgb)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perception:
    """The networks that are at hand."""

    lpips: Lpips | None = None
    inception: Inception | None = None

    def to(self, device: torch.device) -> "Perception":
        """The same on a device."""
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
        """Those of all clips, in the order of the parts."""
        keys = tuple(key for part in parts for key in part.keys)
        return cls(keys=keys, rows=torch.cat([part.rows for part in parts]))

    def of(self, keys: Sequence[str]) -> Float[Tensor, "m f"]:
        """Those of some clips."""
        row = {key: row for row, key in enumerate(self.keys)}
        return self.rows[[row[key] for key in keys]]


def fid(truth: Float[Tensor, "n f"], results: Float[Tensor, "m f"]) -> float:
    """Frechet distance of two sets of features (Heusel et al. 2017), in double precision."""
    distance = FrechetInceptionDistance(feature=_Given(truth.shape[1])).set_dtype(torch.float64)
    distance.update(truth.double(), real=True)
    distance.update(results.double(), real=False)
    return distance.compute().item()


def kid(truth: Float[Tensor, "n f"], results: Float[Tensor, "m f"], *, seed: int) -> float:
    """Kernel distance of two sets of features (Binkowski et al. 2018).

    The mean over 100 subsets of 1,000, which the seed draws, or where there are no more of all at
    once; without bias, so that it may be negative.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save")
        torch.manual_seed(seed)
        fewest = min(len(truth), len(results))
        distance = KernelInceptionDistance(
            feature=_Given(truth.shape[1]),
            subsets=_KID_SUBSETS if fewest > _KID_SUBSET else 1,
            subset_size=min(_KID_SUBSET, fewest),
        )
        distance.update(truth, real=True)
        distance.update(results, real=False)
        return distance.compute()[0].item()


class _Given(nn.Module):
    """Stands where torchmetrics has Inception: the features were computed before."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.num_features = features

    def forward(self, features: Tensor) -> Tensor:
        return features
