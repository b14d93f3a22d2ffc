"""Assigns to each clip the scene semantics that guide its colours under each condition."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from aiaic.evaluation.conditions import (
    IMAGE,
    MATCHED,
    MISMATCHED,
    MISSING,
    SWAPPED,
    GroundTruth,
    Sounds,
)
from aiaic.evaluation.encoding import Semantics


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guide:
    """What guides the colours of some clips under one condition, on the CPU."""

    keys: tuple[str, ...]
    semantics: Float[Tensor, "n d"]
    present: Bool[Tensor, " n"]
    """Whether there is something to be guided by: a sound over -60 dBFS, or a picture."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assignment:
    """All that scoring some clips depends on beside the clips themselves."""

    fitting: frozenset[str]
    """Those of the clips whose own sound fits."""
    guides: Mapping[str, Guide]
    """By condition, except ``silent``, whose semantics the model computes from zeros."""
    swapped_class: Mapping[str, str]
    """For clips with a swapped sound, the sibling class whose colours it should produce."""


class Assigner:
    """Looks up the semantics that guide each clip."""

    def __init__(self, semantics: Semantics, sounds: Sounds, truth: GroundTruth | None) -> None:
        """Args:
        semantics: semantics of all clips.
        sounds: the sound partners of all clips.
        truth: ground truth of a synthetic world.
        """
        self._semantics = semantics
        self._sounds = sounds
        self._truth = truth
        self._row = {key: row for row, key in enumerate(semantics.keys)}

    def assign(self, keys: Sequence[str]) -> Assignment:
        """The assignment of some clips."""
        fitting = [key for key in keys if key in self._sounds.fitting]
        swapped = {key: self._sounds.swapped[key] for key in fitting if key in self._sounds.swapped}
        classes = {} if self._truth is None else self._truth.class_by_key
        return Assignment(
            fitting=frozenset(fitting),
            guides={name: guide for name, guide in self._guides(keys, fitting) if guide.keys},
            swapped_class={key: classes[partner] for key, partner in swapped.items()},
        )

    def _guides(self, keys: Sequence[str], fitting: Sequence[str]) -> Iterator[tuple[str, Guide]]:
        semantics, own = self._semantics, {key: key for key in fitting}
        nothing = torch.zeros(len(keys), semantics.scene.shape[1])
        absent = torch.zeros(len(keys), dtype=torch.bool)
        yield MISSING, Guide(keys=tuple(keys), semantics=nothing, present=absent)
        if semantics.image is not None:
            present = torch.ones(len(semantics.image), dtype=torch.bool)
            yield IMAGE, self._guide(own, semantics.image, present)
        for name, sound in semantics.sound.items():
            yield name, self._guide(own, sound, semantics.audible[name])
        if MATCHED not in semantics.sound:
            return
        for name, partners in (
            (MISMATCHED, self._sounds.mismatched),
            (SWAPPED, self._sounds.swapped),
        ):
            donors = {key: partners[key] for key in fitting if key in partners}
            clean, audible = semantics.sound[MATCHED], semantics.audible[MATCHED]
            yield name, self._guide(donors, clean, audible)

    def _guide(
        self,
        donors: Mapping[str, str],
        semantics: Float[Tensor, "n d"],
        present: Bool[Tensor, " n"],
    ) -> Guide:
        rows = [self._row[donor] for donor in donors.values()]
        return Guide(keys=tuple(donors), semantics=semantics[rows], present=present[rows])
