"""Pretrained weights: torchvision's by the name of their enum, others by file."""

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
"""Returns the state dict for a ``weights`` setting of a configuration."""

_DAMAGE = (  # what torch's restricted unpickler raises on damaged files
    SafetensorError, UnpicklingError, RuntimeError, EOFError, LookupError, AssertionError,
    UnicodeDecodeError, struct.error, TypeError, AttributeError, OverflowError,
)  # fmt: skip

SUFFIXES = (".safetensors", ".pth", ".pt")
"""Suffixes of weight files; any other name is taken for a torchvision enum."""


def read(weights: str) -> State:
    """Read a state dict from a local file, or download torchvision's for an enum such as
    ``ResNet34_Weights.IMAGENET1K_V1``.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not a plain state dict, or torchvision has no such weights.
    """
    if weights.endswith(SUFFIXES):
        return _read_file(Path(weights), weights)
    return find(weights).get_state_dict(progress=False, check_hash=True)


def find(weights: str) -> WeightsEnum:
    """Look up torchvision's weights by enum name, without downloading them.

    Raises:
        ValueError: torchvision has no such weights.
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
        raise ValueError(f"weights '{weights}' are not a plain state dict of tensors")
    return state


def load_trunk(trunk: nn.Module, state: State, *, first: str, classifier: str) -> None:
    """Load a classifier's weights into its trunk.

    Args:
        trunk: the network without its classifier.
        state: the weights by the trunk's names, including the classifier's.
        first: name of the first convolution's weight; if the trunk has other input channels, its
            filters are summed over colours and divided evenly among them.
        classifier: prefix of the classifier's names, which are skipped.

    Raises:
        ValueError: a weight is missing, unexpected, or has another shape.
    """
    own = trunk.state_dict()
    used = {
        name: value
        for name, value in state.items()
        if not name.startswith(classifier) and not name.endswith("num_batches_tracked")
    }
    if first in used and first in own and used[first].shape[1] != own[first].shape[1]:
        channels = own[first].shape[1]
        used[first] = used[first].sum(1, keepdim=True).expand_as(own[first]) / channels
    try:
        trunk.load_state_dict(used)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the weights do not fit: {reason}") from None
