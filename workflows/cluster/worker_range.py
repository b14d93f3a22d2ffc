"""How many workers train: a number, or a range for a cluster that shrinks and grows."""

import dataclasses
import re

_RANGE = re.compile(r"(\d+)(?::(\d+))?")


@dataclasses.dataclass(frozen=True)
class Workers:
    """Between ``least`` and ``most`` workers of Ray Train; 0: this process."""

    least: int
    most: int

    def __post_init__(self) -> None:
        if self.least < 0 or self.least > self.most or (self.least == 0 < self.most):
            raise ValueError(
                f"{self} workers: give 0 for this process, N for as many of Ray Train, or MIN:MAX"
            )

    def __str__(self) -> str:
        return str(self.most) if self.least == self.most else f"{self.least}:{self.most}"

    def within(self, room: int) -> int:
        """How many to start where there is room for ``room``; never fewer than ``least``."""
        return max(self.least, min(self.most, room))

    @classmethod
    def exactly(cls, count: int) -> "Workers":
        """A fixed number."""
        return cls(count, count)

    @classmethod
    def parse(cls, text: str) -> "Workers":
        """``4``, or ``2:8`` for two to eight.

        Raises:
            ValueError: the text is neither.
        """
        match = _RANGE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"--workers is '{text}': give 0, a number N, or MIN:MAX")
        return cls(int(match[1]), int(match[2] or match[1]))
