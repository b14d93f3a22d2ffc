"""What ``aiaic tune`` searches: pure functions from settings to Ray Tune's domains."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune

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


def read(file: str | None) -> dict[str, dict[str, Any]]:
    """A search space from its file; ours where there is none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON object of objects.
    """
    if file is None:
        return DEFAULT
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"no search space at '{file}'")
    try:
        space = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{file}' is no JSON: {error}") from None
    if not isinstance(space, dict) or not all(isinstance(v, dict) for v in space.values()):
        raise ValueError(f"'{file}' is no JSON object of objects, such as {_example()}")
    return space


def domains(space: Mapping[str, Mapping[str, Any]], recipe: Recipe) -> dict[str, Any]:
    """Ray Tune's domains, after a look at whether the recipe has such settings.

    Raises:
        ValueError: a key is unknown, needs another stage-1 checkpoint, or has no range or choices.
    """
    if not space:
        raise ValueError(f"the search space is empty: give keys, such as {_example()}")
    return {key: _domain(key, choice, recipe) for key, choice in space.items()}


def _domain(key: str, choice: Mapping[str, Any], recipe: Recipe) -> Any:
    fixed = {f"model.{name}" for name in ModelConfig().architecture()}
    if key in fixed or key.startswith(("stage1.", "view.", "sampling.")):
        raise ValueError(
            f"'{key}' cannot be searched: every trial starts from one stage-1 checkpoint, "
            "which depends on it"
        )
    if choice.keys() == _CHOICES and choice["choices"]:
        for value in choice["choices"]:
            config.override(recipe, {key: value})
        return tune.choice(list(choice["choices"]))
    if not {"low", "high"} <= choice.keys() <= _RANGE:
        raise ValueError(f"'{key}': give a range or choices, such as {_example()}")
    low, high = choice["low"], choice["high"]
    for value in (low, high):
        config.override(recipe, {key: value})
    if not low < high or (choice.get("log") and low <= 0):
        raise ValueError(f"'{key}': low must be less than high, and above 0 where log is true")
    if isinstance(low, int) and isinstance(high, int) and not choice.get("log"):
        return tune.randint(low, high + 1)
    return tune.loguniform(low, high) if choice.get("log") else tune.uniform(low, high)


def _example() -> str:
    return json.dumps({"model.guidance.tau": DEFAULT["model.guidance.tau"]})
