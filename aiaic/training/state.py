"""What a training step changes: weights, their running averages, and AdamW's moments."""

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


class Learner:
    """The learning part of a stage.

    Args:
        stage: on its device.
        training: clipping, decay and averaging.
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

    def forget(self) -> None:
        """Drop the gradients of the step before."""
        self._optimizer.zero_grad(set_to_none=True)

    def update(self, step: int, rate: float) -> Tensor:
        """Follow the gradients of step ``step``, from 0, at a learning rate; gives their norm."""
        norm = nn.utils.clip_grad_norm_(self.parameters, self._clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["share"]
        self._optimizer.step()
        self.averages.update(step)
        return norm

    def copies(self) -> "Copies":
        """All of it as it is now."""
        state = self._optimizer.state
        tensors: dict[str, Tensor] = {}
        for name, parameter, average in self._named():
            tensors |= {f"weight.{name}": parameter, f"average.{name}": average}
            tensors |= {f"{moment}.{name}": state[parameter][moment] for moment in _MOMENTS}
        trained = {name.removeprefix(_MODEL) for name in self.names}
        model = self._stage.model.state_dict().items()
        return Copies(
            training=StagedTensors(tensors, self._spare_training),
            rest=StagedTensors(
                {n: value for n, value in model if n not in trained}, self._spare_rest
            ),
        )

    @torch.no_grad()
    def load(self, folder: Path) -> None:
        """Take what a checkpoint holds.

        Raises:
            DamagedError: it is not what was written.
        """
        # The model first, for all that is no weight; its weights are averages.
        self._stage.model.load_state_dict(checkpoint.read_model(folder))
        stored = checkpoint.read_training(folder)
        for name, parameter, average in self._named():
            parameter.copy_(stored[f"weight.{name}"])
            average.copy_(stored[f"average.{name}"])
            step = stored[f"step.{name}"].to(parameter.device, copy=True)
            self._optimizer.state[parameter] = {"step": step} | {
                # In the weight's own layout: a file has none, and fused kernels refuse another.
                moment: torch.empty_like(parameter).copy_(stored[f"{moment}.{name}"])
                for moment in ("exp_avg", "exp_avg_sq")
            }

    def _named(self) -> "zip[tuple[str, nn.Parameter, Tensor]]":
        return zip(self.names, self.parameters, self.averages.averages, strict=True)


class Copies:
    """A learner and its model at one step.

    Args:
        training: what a resume needs.
        rest: what the model holds besides, and does not learn.
    """

    def __init__(self, *, training: StagedTensors, rest: StagedTensors) -> None:
        self._training, self._rest = training, rest

    def tensors(self) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        """The model with averaged weights, and what a resume needs; may be called in any thread."""
        stored, prefix = self._training.tensors(), f"average.{_MODEL}"
        averaged = {n.removeprefix(prefix): v for n, v in stored.items() if n.startswith(prefix)}
        return self._rest.tensors() | averaged, stored
