"""Reads the ground truth of a synthetic world. Only evaluation may see it."""

import dataclasses
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from aiaic.evaluation.conditions import GroundTruth
from data_prep import storage
from workflows.media import images

_NAME = "truth.parquet"
_RENDERINGS = "renderings"
_COLUMNS = ("key", "class", "appearance", "fits", "split")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SyntheticWorld:
    """What evaluation may know of a synthetic world."""

    truth: GroundTruth
    splits: tuple[str, ...]
    """All splits that have clips."""


def read(place: str) -> SyntheticWorld:
    """Read the ground truth from its file, or from the folder that ``synthesize`` wrote.

    Raises:
        FileNotFoundError: there is no ground truth.
        ValueError: the file is not a table of ground truth.
    """
    table_place = place if storage.size_of(place) is not None else storage.join(place, _NAME)
    if storage.size_of(table_place) is None:
        raise FileNotFoundError(
            f"no ground truth at '{place}': give the folder that 'aiaic synthesize' wrote"
        )
    rows = _rows(table_place)
    renderings = storage.join(storage.parent_of(table_place), _RENDERINGS)

    def rendering(key: str, name: str) -> NDArray[np.uint8]:
        picture = storage.join(renderings, f"{key}.{name}.png")
        return images.decode(storage.read_bytes(picture), picture)

    return SyntheticWorld(
        truth=GroundTruth(
            class_by_key={row["key"]: row["class"] for row in rows},
            appearance_by_key={row["key"]: row["appearance"] for row in rows},
            fits_by_key={row["key"]: bool(row["fits"]) for row in rows},
            rendering=rendering,
        ),
        splits=tuple(sorted({row["split"] for row in rows})),
    )


def _rows(place: str) -> list[dict[str, Any]]:
    try:
        return pq.read_table(
            io.BytesIO(storage.read_bytes(place)), columns=list(_COLUMNS)
        ).to_pylist()
    except (pa.ArrowInvalid, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"'{place}' is not the ground truth of a synthetic world: {reason}"
        ) from None
