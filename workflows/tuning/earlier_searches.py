"""Reads searches of versions that kept their trials in Ray Tune's files.

Their ``search/tuner.pkl`` is a pickle, which is never loaded. What is read are Tune's text files
(``search/<id>/params.json`` and ``result.json``) and the checkpoints in ``trials/<id>``, which
hold a trial's settings and scores even where Tune's files were lost.
"""

import dataclasses
import itertools
import json
import logging
import math
import re
from collections.abc import Iterable
from typing import Any, cast

from aiaic import config
from aiaic.checkpointing.checkpoint import DamagedError, Record
from aiaic.training.recipe import Recipe
from data_prep import storage
from workflows.artifacts import run_folder
from workflows.tuning.search import OBJECTIVE, Search, trial_recipe
from workflows.tuning.trials import State, Trial, TrialStore

log = logging.getLogger(__name__)

_TUNE_FOLDER = "search"
_SETTINGS, _RESULTS = "params.json", "result.json"
_NUMBERED = re.compile(r".+_(\d{5,})")


def read_trials(search: Search, recipe: Recipe, out: str) -> list[Trial]:
    """The trials of a search that has no record of ours; none where it has not started any.

    Trials that were neither finished nor stopped early are left to be resumed. Those whose settings
    cannot be found are left out.

    Args:
        search: what is searched.
        recipe: the recipe that trials vary.
        out: the search's folder.
    """
    steps = trial_recipe(recipe, search.steps, {}).stage3.steps
    trials: list[Trial] = []
    for name in sorted(_names(out), key=_order):
        trial = _read_trial(out, name, search, steps)
        if trial is None:
            log.warning("trial %s of an earlier version is left out: its settings are lost", name)
        elif len(trials) < search.trials:
            trials.append(dataclasses.replace(trial, index=len(trials)))
    return trials


def _read_trial(out: str, name: str, search: Search, steps: int) -> Trial | None:
    """A trial without its index; None where its settings are lost."""
    folder = storage.join(out, _TUNE_FOLDER, name)
    records = _records(TrialStore(out).folder(name))
    settings = _json_object(storage.join(folder, _SETTINGS)) or _settings_of(records, search)
    if settings is None or settings.keys() != search.space.keys():
        return None
    trial, state = Trial(id=name, index=0, settings=settings), cast(State, "running")
    for row in _curve(records):
        if row["step"] < steps:  # the score of the last step is that of the best checkpoint
            trial = trial.with_score(int(row["step"]), OBJECTIVE, row[OBJECTIVE])
    for row in _results(storage.join(folder, _RESULTS)):
        trial = trial.with_score(row["step"], OBJECTIVE, row[OBJECTIVE])
        state = "stopped" if row.get("done") else "running"
    return dataclasses.replace(trial, state="finished" if trial.last_step >= steps else state)


def _names(out: str) -> set[str]:
    """Folders of trials, of Tune's or of ours."""
    names: set[str] = set()
    for folder in (_TUNE_FOLDER, "trials"):
        place = storage.join(out, folder)
        if storage.exists(place) and storage.size_of(place) is None:
            parts = (file.name.split("/") for file in storage.list_files(place))
            names |= {first for first, *rest in parts if rest}
    return names


def _order(name: str) -> tuple[int, str]:
    """Tune numbered its trials in the order of their draws."""
    numbered = _NUMBERED.fullmatch(name)
    return int(numbered[1]) if numbered else 1 << 62, name


def _records(trial: str) -> list[Record]:
    """Records of a trial's newest checkpoints of stages 2 and 3, as far as they are whole."""
    records: list[Record] = []
    for stage in (2, 3):
        for place in run_folder.steps(run_folder.stage_place(trial, stage))[-1:]:
            try:
                records.append(run_folder.read_record(place))
            except DamagedError as error:
                log.warning("'%s' is passed over: %s", place, error)
    return records


def _settings_of(records: Iterable[Record], search: Search) -> dict[str, Any] | None:
    """A trial's settings, as recorded in a checkpoint."""
    for record in records:
        recipe = config.dotted_keys(record.recipe)
        return {key: recipe[key] for key in search.space if key in recipe}
    return None


def _curve(records: Iterable[Record]) -> list[dict[str, float]]:
    """Points of stage 3's curves that hold the objective."""
    curves = (record.curves for record in records if record.stage == 3)
    return [row for row in itertools.chain.from_iterable(curves) if OBJECTIVE in row]


def _json_object(place: str) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none."""
    if storage.size_of(place) is None:
        return None
    return _parse(storage.read_bytes(place))


def _results(place: str) -> list[dict[str, Any]]:
    """What a trial reported to Tune, one JSON object per line; a kill may leave half a line."""
    if storage.size_of(place) is None:
        return []
    rows = (_parse(line) for line in storage.read_bytes(place).splitlines())
    return [row for row in rows if row and _is_score(row)]


def _is_score(row: dict[str, Any]) -> bool:
    score, step = row.get(OBJECTIVE), row.get("step")
    return isinstance(step, int) and isinstance(score, float) and math.isfinite(score)


def _parse(text: bytes) -> dict[str, Any] | None:
    try:
        values = json.loads(text)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None
