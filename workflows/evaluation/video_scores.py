"""Scores of ``aiaic evaluate --videos``: colour videos, colorized and compared with themselves."""

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aiaic.inference import Colorizer
from aiaic.networks.model import Model
from data_prep import storage
from data_prep.catalog import VIDEO_SUFFIXES
from workflows.artifacts import scratch
from workflows.media import video

_MEANS = ("psnr_db", "flicker_ab", "original_flicker_ab")


def score(videos: Mapping[str, str], model: Model, size_px: int) -> dict[str, Any]:
    """PSNR and flicker of colour videos, colorized from their lightness and sound.

    Args:
        videos: their places by name.
        model: a model with a trained audio encoder.
        size_px: short side at which chroma is predicted.

    Returns:
        The number of videos ``n``, means over videos, and ``each`` by name.

    Raises:
        ValueError: a video cannot be colorized or compared.
    """
    colorizer = Colorizer(model, size_px=size_px)
    each: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=scratch.folder()) as folder:
        result = str(Path(folder, "colorized.mkv"))
        for name, source in videos.items():
            video.colorize(source, result, colorizer)
            each[name] = dataclasses.asdict(video.measure(result, source))
    means = {metric: float(np.mean([row[metric] for row in each.values()])) for metric in _MEANS}
    return {"n": len(each), **means, "each": each}


def find(place: str) -> dict[str, str]:
    """The places of a video, or of all videos in a folder, by their names.

    Raises:
        FileNotFoundError: there is no such place.
        ValueError: the folder holds no video.
    """
    if storage.size_of(place) is not None:
        return {storage.name_of(place): place}
    if not storage.exists(place):
        raise FileNotFoundError(f"no video or folder at '{place}'")
    found = {file.name: file.uri for file in storage.list_files(place)}
    videos = {n: u for n, u in found.items() if storage.suffix_of(n) in VIDEO_SUFFIXES}
    if not videos:
        raise ValueError(f"folder '{place}' holds no video ({', '.join(VIDEO_SUFFIXES)})")
    return videos
