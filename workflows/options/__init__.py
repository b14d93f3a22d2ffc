"""The commands of ``aiaic`` as typed options; the command line and its help are made from them.

Command ``x`` is carried out by ``run`` in ``workflows/commands/x.py``, which takes the options
defined here and returns an :class:`Outcome`. Nothing heavy is imported, so that help appears at
once.
"""

from workflows.options.base import Command, Outcome
from workflows.options.data import Duplicates, Inspect, Prepare, Synthesize, Verify
from workflows.options.fields import flat
from workflows.options.pipelines import Demo, Reproduce, Submit
from workflows.options.results import Colorize, Evaluate, Export
from workflows.options.training import Recipes, Train, Tune

COMMANDS: dict[str, type[Command]] = {
    "synthesize": Synthesize,
    "prepare": Prepare,
    "verify": Verify,
    "inspect": Inspect,
    "duplicates": Duplicates,
    "recipes": Recipes,
    "train": Train,
    "tune": Tune,
    "evaluate": Evaluate,
    "colorize": Colorize,
    "export": Export,
    "submit": Submit,
    "reproduce": Reproduce,
    "demo": Demo,
}

__all__ = [
    "COMMANDS",
    "Colorize",
    "Command",
    "Demo",
    "Duplicates",
    "Evaluate",
    "Export",
    "Inspect",
    "Outcome",
    "Prepare",
    "Recipes",
    "Reproduce",
    "Submit",
    "Synthesize",
    "Train",
    "Tune",
    "Verify",
    "flat",
]
