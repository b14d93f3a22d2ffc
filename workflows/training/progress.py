"""Progress bars for a training run in a terminal."""

from types import TracebackType
from typing import Any, Self

from tqdm import tqdm


class Bars:
    """A progress bar on stderr for the current stage; use it as a context manager."""

    def __init__(self) -> None:
        self._stage = 0
        self._bar: tqdm[Any] | None = None

    def show(self, stage: int, step: int, steps: int, loss: float) -> None:
        """Show the position in a stage; a new stage gets a new bar."""
        if self._bar is None or stage != self._stage:
            self.close()
            self._bar = tqdm(
                total=steps, initial=step, desc=f"stage {stage}", unit="step", dynamic_ncols=True
            )
            self._stage = stage
        self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        self._bar.update(max(0, step - self._bar.n))

    def close(self) -> None:
        """End the current bar, which remains visible."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
