"""Pretrained weights: torchvision's by the name of their enum, anyone's by file."""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_weight

State = Mapping[str, Tensor]
ReadWeights = Callable[[str], State]
"""What ``weights`` names in a configuration -> a state dict."""

_DAMAGE = (  # what torch's restricted unpickler raises on damaged files
    SafetensorError, UnpicklingError, RuntimeError, EOFError, LookupError, AssertionError,
    UnicodeDecodeError, struct.error, TypeError, AttributeError, OverflowError,
)  # fmt: skip

SUFFIXES = (".safetensors", ".pth", ".pt")
"""Of files of weights; everything else is taken for a torchvision enum."""


def read(weights: str) -> State:
    """A state dict from a local file or a torchvision enum such as
    ``ResNet34_Weights.IMAGENET1K_V1``, which torchvision downloads.

    Raises:
        FileNotFoundError: there is no file of that name.
        ValueError: the file holds no plain state dict, or torchvision has no such weights.
    """
    if weights.endswith(SUFFIXES):
        return _read_file(Path(weights), weights)
    return find(weights).get_state_dict(progress=False, check_hash=True)


def find(weights: str) -> WeightsEnum:
    """Torchvision's entry of an enum's name; nothing is downloaded.

    Raises:
        ValueError: there is none.
    """
    try:
        return get_weight(weights)
    except (ValueError, KeyError, AttributeError):
        raise ValueError(
            f"weights '{weights}' are neither a torchvision enum such as "
            f"ResNet34_Weights.IMAGENET1K_V1 nor a file ({', '.join(SUFFIXES)})"
        ) from None


def _read_file(path: Path, weights: str) -> State:
    if not path.is_file():
        raise FileNotFoundError(f"no weights at '{weights}'")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        reason = str(error).split("\n", 1)[0][:200]
        raise ValueError(f"weights '{weights}' cannot be read: {reason}") from None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"weights '{weights}' are no plain state dict of tensors")
    return state


def load_trunk(trunk: nn.Module, state: State, *, first: str, classifier: str) -> None:
    """Load a classifier's weights into its trunk.

    Args:
        trunk: the network without its classifier.
        state: named as the trunk names them, classifier and all.
        first: name of the first convolution's weight; filters for colour are summed over colours
            and shared out among the trunk's input channels where it has others.
        classifier: prefix of the classifier's names, which are left out.

    Raises:
        ValueError: a weight is missing, superfluous, or has another shape.
    """
    own = trunk.state_dict()
    taken = {
        name: value
        for name, value in state.items()
        if not name.startswith(classifier) and not name.endswith("num_batches_tracked")
    }
    if first in taken and first in own and taken[first].shape[1] != own[first].shape[1]:
        channels = own[first].shape[1]
        taken[first] = taken[first].sum(1, keepdim=True).expand_as(own[first]) / channels
    try:
        trunk.load_state_dict(taken)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the weights do not fit: {reason}") from None
