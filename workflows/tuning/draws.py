"""Draws the settings of trials: pure functions of the space, the seed, and the trials so far.

Nothing is kept between draws, so a search that is continued draws what it would have drawn.
"""

import hashlib
import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from workflows.tuning.search_space import Choices, Range, Space
from workflows.tuning.trials import Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Method = Literal["random", "optuna"]


def draw(
    method: Method, space: Space, seed: int, index: int, trials: Sequence[Trial], objective: str
) -> dict[str, Any]:
    """Settings of the trial with this index.

    Args:
        method: random draws, or Optuna's tree-structured Parzen estimator.
        space: what is searched.
        seed: of the search.
        index: of the trial, from 0.
        trials: the others, in the order of their draws; without meaning for random draws.
        objective: key of the score in their rows; lower is better.
    """
    if method == "random":
        return {key: _random(values, f"{seed}/{index}/{key}") for key, values in space.items()}
    return _optuna(space, seed, index, trials, objective)


def _random(values: Range | Choices, key: str) -> Any:
    generator = random.Random(key)  # noqa: S311 (reproducible, not secret)
    if isinstance(values, Choices):
        return generator.choice(values.values)
    if values.whole:
        return generator.randint(int(values.low), int(values.high))
    if not values.log:
        return generator.uniform(values.low, values.high)
    drawn = math.exp(generator.uniform(math.log(values.low), math.log(values.high)))
    return min(max(drawn, values.low), values.high)


def _optuna(
    space: Space, seed: int, index: int, trials: Sequence[Trial], objective: str
) -> dict[str, Any]:
    import optuna  # noqa: PLC0415 (takes a second, and random draws do without it)
    from optuna.trial import TrialState, create_trial  # noqa: PLC0415

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {key: _distribution(values) for key, values in space.items()}
    states = {
        "finished": TrialState.COMPLETE,
        "stopped": TrialState.PRUNED,
        "failed": TrialState.FAIL,
    }
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=_derive(seed, index)))
    for trial in trials:
        scores = trial.scored(objective)
        state = states.get(trial.state, TrialState.RUNNING)
        study.add_trial(
            create_trial(
                state=state,
                value=scores[trial.last_step] if state == TrialState.COMPLETE else None,
                params=trial.settings,
                distributions=distributions,
                intermediate_values=scores,
            )
        )
    return study.ask(distributions).params


def _distribution(values: Range | Choices) -> "BaseDistribution":
    from optuna import distributions  # noqa: PLC0415

    if isinstance(values, Choices):
        return distributions.CategoricalDistribution(values.values)
    if values.whole:
        return distributions.IntDistribution(int(values.low), int(values.high))
    return distributions.FloatDistribution(values.low, values.high, log=values.log)


def _derive(seed: int, index: int) -> int:
    """Another seed for each draw, since the estimator starts from its seed at each of them."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:4])
