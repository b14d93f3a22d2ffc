"""What the loop knows of a stage."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from aiaic.batch import Batch
from aiaic.networks.model import Model


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageOutput:
    """A stage's losses, per sample of this worker."""

    loss: Float[Tensor, " b"]
    """What is minimized: its mean over the global batch."""
    terms: dict[str, Float[Tensor, " b"]]
    """Unweighted terms and other figures for the curves."""


class Stage(nn.Module, ABC):
    """A stage around the whole model; parts it does not train are frozen, bit for bit.

    Args:
        model: the whole model.
        trained: parts that learn, each with its share of the learning rate.
    """

    def __init__(self, model: Model, trained: Sequence[tuple[nn.Module, float]]) -> None:
        super().__init__()
        self.model = model
        self._trained = tuple(trained)
        model.requires_grad_(requires_grad=False)
        for part, _ in self._trained:
            part.requires_grad_(requires_grad=True)

    def parameter_shares(self) -> list[tuple[str, nn.Parameter, float]]:
        """(name, parameter, share of the learning rate) of all that learns."""
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        return [
            (names[id(parameter)], parameter, share)
            for part, share in self._trained
            for parameter in part.parameters()
            if parameter.requires_grad
        ]

    @abstractmethod
    def forward(self, batch: Batch) -> StageOutput:
        """Losses of a training batch; takes part in collectives where there are several workers."""

    @abstractmethod
    def validate(self, batch: Batch) -> StageOutput:
        """Losses of a validation batch: no random draws, no other worker."""
