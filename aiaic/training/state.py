"""What a training step changes: weights, their moving averages, and AdamW's moments."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from aiaic.checkpointing import checkpoint
from aiaic.checkpointing.async_saver import StagedTensors
from aiaic.stages.base import Stage
from aiaic.training.optim import AveragedWeights, TrainingConfig, adamw

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_MODEL = "model."


class TrainState:
    """The trained parameters of a stage with their optimizer.

    Args:
        stage: on its device, with the weights that training starts from.
        training: gradient clipping, weight decay and averaging.
    """

    def __init__(self, stage: Stage, training: TrainingConfig) -> None:
        shares = stage.parameter_shares()
        self.names = [name for name, _, _ in shares]
        self.parameters = [parameter for _, parameter, _ in shares]
        self.averages = AveragedWeights(self.parameters, training.ema_decay)
        self._stage = stage
        self._clip_norm = training.clip_norm
        self._optimizer = adamw(shares, training.weight_decay)
        self._spare_training: list[dict[str, Tensor]] = []
        self._spare_rest: list[dict[str, Tensor]] = []

    def zero_grad(self) -> None:
        """Drop all gradients."""
        self._optimizer.zero_grad(set_to_none=True)

    def step(self, step: int, learning_rate: float) -> Tensor:
        """Clip gradients, and update weights and averages; returns the norm before clipping.

        Args:
            step: counted from 0.
            learning_rate: of parameters whose share of it is 1.
        """
        norm = nn.utils.clip_grad_norm_(self.parameters, self._clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate * group["share"]
        self._optimizer.step()
        self.averages.update(step)
        return norm

    def snapshot(self) -> "StateSnapshot":
        """A copy of the current state and of the rest of the model."""
        state = self._optimizer.state
        tensors: dict[str, Tensor] = {}
        for name, parameter, average in self._named():
            tensors |= {f"weight.{name}": parameter, f"average.{name}": average}
            tensors |= {f"{moment}.{name}": state[parameter][moment] for moment in _MOMENTS}
        trained = {name.removeprefix(_MODEL) for name in self.names}
        model = self._stage.model.state_dict().items()
        rest = {name: value for name, value in model if name not in trained}
        return StateSnapshot(
            training=StagedTensors(tensors, self._spare_training),
            rest=StagedTensors(rest, self._spare_rest),
        )

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Load a checkpoint.

        Raises:
            DamagedError: a file is missing or damaged.
        """
        # The model first, for what is not trained; its trained weights are averages.
        self._stage.model.load_state_dict(checkpoint.read_model(folder))
        stored = checkpoint.read_training(folder)
        for name, parameter, average in self._named():
            parameter.copy_(stored[f"weight.{name}"])
            average.copy_(stored[f"average.{name}"])
            step = stored[f"step.{name}"].to(parameter.device, copy=True)
            self._optimizer.state[parameter] = {"step": step} | {
                # In the weight's memory format: files have none, and fused kernels need the same.
                moment: torch.empty_like(parameter).copy_(stored[f"{moment}.{name}"])
                for moment in ("exp_avg", "exp_avg_sq")
            }

    def _named(self) -> "zip[tuple[str, nn.Parameter, Tensor]]":
        return zip(self.names, self.parameters, self.averages.averages, strict=True)


class StateSnapshot:
    """A copy of a :class:`TrainState` and its model at one step.

    Args:
        training: what a resume needs.
        rest: the parts of the model that are not trained.
    """

    def __init__(self, *, training: StagedTensors, rest: StagedTensors) -> None:
        self._training, self._rest = training, rest

    def tensors(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """The model with averaged weights, and what a resume needs; may be called in any thread."""
        stored, prefix = self._training.tensors(), f"average.{_MODEL}"
        averaged = {n.removeprefix(prefix): v for n, v in stored.items() if n.startswith(prefix)}
        return self._rest.tensors() | averaged, stored
