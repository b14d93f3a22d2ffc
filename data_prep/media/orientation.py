"""Rotated and mirrored frames, as phones record them."""

import struct
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Orientation:
    """How a coded frame is rotated and mirrored for display; transposition comes first."""

    transposed: bool = False
    """Whether rows and columns are swapped."""
    row_step: int = 1
    """-1 if the rows are then reversed."""
    column_step: int = 1
    """-1 if the columns are then reversed."""

    def upright(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A coded picture [h w 3] as it is displayed."""
        image = image.transpose(1, 0, 2) if self.transposed else image
        return np.ascontiguousarray(image[:: self.row_step, :: self.column_step])

    def coded(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A displayed picture [h w 3] as it is coded: the inverse of ``upright``."""
        image = image[:: self.row_step, :: self.column_step]
        return np.ascontiguousarray(image.transpose(1, 0, 2) if self.transposed else image)


def orientation_of(frame: VideoFrame) -> Orientation:
    """The orientation in a frame's display matrix, to the nearest quarter turn."""
    matrix = display_matrix(frame)
    if matrix is None:
        return Orientation()
    x_of_x, y_of_x, _, x_of_y, y_of_y = matrix[:5]
    transposed = abs(y_of_x) + abs(x_of_y) > abs(x_of_x) + abs(y_of_y)
    if transposed:
        x_of_x, y_of_y = x_of_y, y_of_x
    return Orientation(
        transposed=transposed,
        row_step=-1 if y_of_y < 0 else 1,
        column_step=-1 if x_of_x < 0 else 1,
    )


def display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    """The nine numbers of a frame's display matrix; None if it has none."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return None if matrix is None else struct.unpack_from("=9i", bytes(matrix))
