"""Pretrained weights by place."""

import tempfile
from pathlib import Path

from aiaic.networks import pretrained
from aiaic.networks.pretrained import SUFFIXES, State
from data_prep import storage
from workflows.artifacts import scratch


def check(weights: str) -> None:
    """Look whether there are such weights, before anything starts.

    Raises: as :func:`read`.
    """
    if not storage.name_of(weights).endswith(SUFFIXES):
        pretrained.find(weights)
    elif storage.size_of(weights) is None:
        raise FileNotFoundError(f"no weights at '{weights}'")


def read(weights: str) -> State:
    """A state dict by torchvision's enum, or from a file at a path or URI.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds no plain state dict, or torchvision has no such weights.
    """
    name = storage.name_of(weights)
    if not name.endswith(SUFFIXES):
        return pretrained.read(weights)
    check(weights)
    with tempfile.TemporaryDirectory(dir=scratch.folder()) as folder:
        path = Path(folder, name)
        path.write_bytes(storage.read_bytes(weights))
        try:
            return pretrained.read(str(path))
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), weights)) from None
