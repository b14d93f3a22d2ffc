"""Frames that are to be turned or mirrored when they are shown, as phones write them."""

import struct
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Turn:
    """How a frame is turned and mirrored to be seen upright: rows and columns are swapped first."""

    swapped: bool = False
    rows: int = 1
    """-1: from the last to the first."""
    columns: int = 1

    def upright(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A coded picture [h w 3] as it is seen."""
        image = image.transpose(1, 0, 2) if self.swapped else image
        return np.ascontiguousarray(image[:: self.rows, :: self.columns])

    def coded(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """An upright picture [h w 3] as it is coded."""
        image = image[:: self.rows, :: self.columns]
        return np.ascontiguousarray(image.transpose(1, 0, 2) if self.swapped else image)


def turn_of(frame: VideoFrame) -> Turn:
    """What the display matrix of a frame says, to the nearest quarter."""
    matrix = display_matrix(frame)
    if matrix is None:
        return Turn()
    x_of_x, y_of_x, _, x_of_y, y_of_y = matrix[:5]
    swapped = abs(y_of_x) + abs(x_of_y) > abs(x_of_x) + abs(y_of_y)
    if swapped:
        x_of_x, y_of_y = x_of_y, y_of_x
    return Turn(swapped=swapped, rows=-1 if y_of_y < 0 else 1, columns=-1 if x_of_x < 0 else 1)


def display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    """The nine numbers of a frame's display matrix, if it has one."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return None if matrix is None else struct.unpack_from("=9i", bytes(matrix))
