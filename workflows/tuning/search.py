"""What a search is: its settings, the recipe of its trials, its result."""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from aiaic import config, recipes
from aiaic.training.recipe import Recipe
from data_prep import storage
from workflows.tuning.draws import Method
from workflows.tuning.trials import Trial

log = logging.getLogger(__name__)

OBJECTIVE = "validation_colour"
"""The colour loss on held-out videos, which means the same whatever other terms weigh; lower is
better."""
COMPARISONS = 4
"""Times that a trial is compared with others."""

_STARTED = "search.json"
_BEST = "best.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """What is searched (``search.json``); a search is continued with the same settings only."""

    recipe: dict[str, Any]
    """The configuration that trials vary, without their number of steps."""
    space: dict[str, dict[str, Any]]
    trials: int
    search: Method
    seed: int
    steps: int | None
    split: str
    manifest_digest: str
    init_sha256: str
    """Of the stage-1 checkpoint's weights."""


def trial_recipe(recipe: Recipe, steps: int | None, settings: Mapping[str, Any]) -> Recipe:
    """The recipe of a trial: with its settings, and validated often enough to be compared."""
    if steps is not None:
        recipe = config.override(recipe, {"stage2.steps": steps, "stage3.steps": steps})
    every = max(1, recipe.stage3.steps // COMPARISONS)
    often = {"training.validate_every": every, "training.save_every": every}
    return config.override(recipe, often | dict(settings))


def start(search: Search, out: str) -> bool:
    """Record the search in its folder, unless it is there; returns whether it was.

    Raises:
        ValueError: the folder holds a search with different settings.
    """
    place = storage.join(out, _STARTED)
    if storage.size_of(place) is None:
        storage.write_bytes(place, _json(config.to_json(search)))
        return False
    before = config.dotted_keys(json.loads(storage.read_bytes(place)))
    now = config.dotted_keys(config.to_json(search))
    for key in (*now, *before):
        if now.get(key) != before.get(key):
            raise ValueError(
                f"the search in '{out}' was started with different settings: {key} was "
                f"{before.get(key)!r}, is now {now.get(key)!r}; use a new output folder or restore "
                "the setting"
            )
    return True


def best_place(out: str) -> str:
    """Place of a search's result."""
    return storage.join(out, _BEST)


def read_best(out: str) -> dict[str, Any] | None:
    """``best.json`` of a search; None where it is not there yet."""
    place = best_place(out)
    return None if storage.size_of(place) is None else json.loads(storage.read_bytes(place))


def write_best(recipe: Recipe, trials: Sequence[Trial], out: str) -> dict[str, Any]:
    """Write the best of the trials that came to their end to ``best.json``; returns its values.

    Raises:
        ChildProcessError: no trial did.
    """
    finished = [trial for trial in trials if trial.state == "finished"]
    unfinished = [trial for trial in trials if trial.state in ("failed", "lost")]
    if not finished:
        reason = next((trial.reason for trial in unfinished), "none was started")
        raise ChildProcessError(
            f"no trial came to its end ({reason}); fix it and rerun the command, which resumes "
            f"lost trials: see '{storage.join(out, 'trials')}'"
        )
    if unfinished:
        log.warning(
            "%d of %d trials did not come to their end (%s); rerun the command to retry lost ones",
            len(unfinished), len(trials), unfinished[0].reason,
        )  # fmt: skip
    best = min(finished, key=lambda trial: trial.scored(OBJECTIVE)[trial.last_step])
    values = {
        "recipe": recipe.name,
        "overrides": recipes.difference(recipe) | best.settings,
        "score": best.scored(OBJECTIVE)[best.last_step],
        "search": {
            "objective": OBJECTIVE,
            "found": best.settings,
            "trial": best.id,
            "trials": len(trials),
            "stopped_early": sum(trial.state == "stopped" for trial in trials),
            "failed": len(unfinished),
        },
    }
    storage.write_bytes(best_place(out), _json(values))
    return values


def _json(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, indent=1, sort_keys=True).encode()
