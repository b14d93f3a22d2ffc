"""What ``aiaic tune`` searches: dotted keys of the recipe, each with a range or choices."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from aiaic import config
from aiaic.networks.model import ModelConfig
from aiaic.training.recipe import Recipe

DEFAULT: dict[str, dict[str, Any]] = {
    "model.guidance.tau": {"low": 0.1, "high": 3.0, "log": True},
    "model.guidance.bias": {"low": -1.0, "high": 3.0},
    "model.guidance.eps": {"low": 1e-6, "high": 1e-2, "log": True},
    "stage2.learning_rate": {"low": 2e-4, "high": 4e-3, "log": True},
    "stage3.learning_rate": {"low": 1e-4, "high": 2e-3, "log": True},
    "stage3.p_missing": {"low": 0.05, "high": 0.4},
    "stage3.p_mismatch": {"low": 0.05, "high": 0.5},
    "stage3.relevance_weight": {"low": 0.002, "high": 0.2, "log": True},
}
"""DSG, AdaIN and learning rates; nothing that would need another stage-1 checkpoint."""

_RANGE, _CHOICES = {"low", "high", "log"}, {"choices"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """A number between two bounds, which are included; whole if both bounds are and not log."""

    low: float
    high: float
    log: bool = False
    """Whether the number's logarithm is uniform."""

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int) and not self.log


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
    """One of several values, each as likely as the others."""

    values: tuple[Any, ...]


Space = dict[str, Range | Choices]
"""By dotted key."""


def read(file: str | None) -> dict[str, dict[str, Any]]:
    """A search space from its file; the default one without a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a JSON object of objects.
    """
    if file is None:
        return DEFAULT
    space = config.read_json(file, "search space")
    if not all(isinstance(values, dict) for values in space.values()):
        raise ValueError(f"'{file}' is not a JSON object of objects, such as {_example()}")
    return space


def parse(space: Mapping[str, Mapping[str, Any]], recipe: Recipe) -> Space:
    """Check a search space against the recipe that it varies.

    Raises:
        ValueError: a key is unknown, needs another stage-1 checkpoint, or has no range or choices.
    """
    if not space:
        raise ValueError(f"the search space is empty: give keys, such as {_example()}")
    return {key: _parse_key(key, values, recipe) for key, values in sorted(space.items())}


def _parse_key(key: str, values: Mapping[str, Any], recipe: Recipe) -> Range | Choices:
    fixed = {f"model.{name}" for name in ModelConfig().architecture()}
    if key in fixed or key.startswith(("stage1.", "view.", "sampling.")):
        raise ValueError(
            f"'{key}' cannot be searched: every trial starts from one stage-1 checkpoint, "
            "which depends on it"
        )
    if values.keys() == _CHOICES and values["choices"]:
        for value in values["choices"]:
            config.override(recipe, {key: value})
        return Choices(values=tuple(values["choices"]))
    if not {"low", "high"} <= values.keys() <= _RANGE:
        raise ValueError(f"'{key}': give a range or choices, such as {_example()}")
    found = Range(low=values["low"], high=values["high"], log=bool(values.get("log")))
    for bound in (found.low, found.high):
        config.override(recipe, {key: bound})
    if not found.low < found.high or (found.log and found.low <= 0):
        raise ValueError(f"'{key}': low must be less than high, and above 0 where log is true")
    return found


def _example() -> str:
    return json.dumps({"model.guidance.tau": DEFAULT["model.guidance.tau"]})
