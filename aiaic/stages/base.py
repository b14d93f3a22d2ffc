"""The interface between the loop and a stage."""

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from aiaic.audio import to_float
from aiaic.loading.augmentation import AugmentationConfig, mask_spectrogram
from aiaic.loading.batch import Batch, Draw
from aiaic.networks.model import Model


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageOutput:
    """A stage's losses, per sample of this worker."""

    loss: Float[Tensor, " b"]
    """The loss to minimize; its mean over the global batch is differentiated."""
    terms: dict[str, Float[Tensor, " b"]]
    """Unweighted loss terms and other values for the curves."""


class Function(nn.Module):
    """A function of tensors as a module without weights, to be compiled like a network."""

    def __init__(self, function: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: Tensor) -> Any:
        return self.function(*tensors)


def uncompiled(method: Callable[..., StageOutput]) -> Callable[..., StageOutput]:
    """Decorator for a method that runs uncompiled even if the stage's parts are compiled."""

    @functools.wraps(method)
    def run(*arguments: Any) -> StageOutput:
        with torch.compiler.set_stance("force_eager"):
            return method(*arguments)

    return run


class Stage(nn.Module, ABC):
    """A stage around the whole model; the parts that it does not train are frozen exactly.

    Args:
        model: the whole model.
        trained: the trained parts, each with its share of the learning rate.
    """

    def __init__(self, model: Model, trained: Sequence[tuple[nn.Module, float]]) -> None:
        super().__init__()
        self.model = model
        self._trained = tuple(trained)
        model.requires_grad_(requires_grad=False)
        for part, _ in self._trained:
            part.requires_grad_(requires_grad=True)

    def parameter_shares(self) -> list[tuple[str, nn.Parameter, float]]:
        """(name, parameter, share of the learning rate) of all trained parameters."""
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        return [
            (names[id(parameter)], parameter, share)
            for part, share in self._trained
            for parameter in part.parameters()
            if parameter.requires_grad
        ]

    @abstractmethod
    def tensor_parts(self) -> list[nn.Module]:
        """The parts that may be compiled: pure functions of tensors of fixed shapes.

        They contain no collective, no random draw, and no branch on a value.
        """

    def fit_normalization(self, batches: Iterable[Batch]) -> None:
        """Compute the normalization of sounds before the first step of a run, where it is needed.

        Args:
            batches: fixed training batches, the same on every worker; read only if needed.
        """

    @abstractmethod
    def forward(self, batch: Batch) -> StageOutput:
        """Losses of a training batch; with several workers, a collective."""

    @abstractmethod
    def validate(self, batch: Batch) -> StageOutput:
        """Losses of a validation batch: no random draws, no collectives, not compiled.

        Validation batches differ in shape from training batches, and each shape would be compiled.
        """


class SoundStage(Stage):
    """A stage that uses sound; normalizes spectrograms by the training sounds, and masks them."""

    augmentation: AugmentationConfig

    def fit_normalization(self, batches: Iterable[Batch]) -> None:
        log_mel = self.model.audio.log_mel
        if bool(log_mel.measured):  # by the previous stage
            return
        device = log_mel.mean_db.device
        log_mel.fit_normalization(_sounds(batch.to(device)) for batch in batches)

    def encode_sound(self, batch: Batch, *, augmented: bool) -> Float[Tensor, "b d"]:
        """Scene semantics of a batch's sounds, masked if ``augmented``."""
        audio = self.model.audio
        log_mel = audio.log_mel(_sounds(batch))
        if augmented:
            log_mel = mask_spectrogram(
                log_mel,
                time=(batch.draw(Draw.MASK_TIME_WIDTH), batch.draw(Draw.MASK_TIME)),
                mel=(batch.draw(Draw.MASK_MEL_WIDTH), batch.draw(Draw.MASK_MEL)),
                augmentation=self.augmentation,
            )
        return audio.embed(log_mel)


def _sounds(batch: Batch) -> Float[Tensor, "b t"]:
    assert batch.waveform is not None
    return to_float(batch.waveform)
