"""What a person sees of a training run while it runs."""

from types import TracebackType
from typing import Any, Self

from tqdm import tqdm


class Bars:
    """A progress bar on stderr for the stage under way; used as a context."""

    def __init__(self) -> None:
        self._stage = 0
        self._bar: tqdm[Any] | None = None

    def show(self, stage: int, step: int, steps: int, loss: float) -> None:
        """Show where a stage is; a new stage gets a new bar."""
        if self._bar is None or stage != self._stage:
            self.close()
            self._bar = tqdm(
                total=steps, initial=step, desc=f"stage {stage}", unit="step", dynamic_ncols=True
            )
            self._stage = stage
        self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        self._bar.update(max(0, step - self._bar.n))

    def close(self) -> None:
        """Leave the bar as it stands."""
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
