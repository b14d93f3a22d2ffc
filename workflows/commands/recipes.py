"""``aiaic recipes``: which recipes there are, and what each of their settings means."""

import dataclasses
import json
import re
import shutil
import textwrap
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from aiaic import config, recipes
from aiaic.training.recipe import Recipe
from workflows.options import Outcome, Prepare, Recipes
from workflows.options.docstrings import of_fields, summary

_PREPARE = "prepare"
_WIDEST = 100
_USAGE = (
    "'aiaic recipes NAME/VARIANT' explains the settings of one, 'aiaic recipes prepare' those of "
    "'aiaic prepare --set'."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One leaf of a configuration."""

    key: str
    """Its dotted key."""
    value: Any
    """As plain JSON."""
    default: Any
    """What it is unless a recipe says otherwise."""
    choices: tuple[str, ...]
    """All possible values where they are listed, else none."""
    help: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """The leaves of one configuration class."""

    key: str
    help: str
    settings: tuple[Setting, ...]


def run(options: Recipes) -> Outcome:
    """Carry out the command."""
    if options.name is None:
        return _list()
    if options.name == _PREPARE:
        configuration = defaults = _prepared()
        name, purpose = _PREPARE, "Settings of 'aiaic prepare', as they are without any option."
    else:
        configuration = recipes.named(options.name)
        name, defaults = configuration.name, Recipe(name=configuration.name)
        purpose = _purpose(name)
    explained = list(sections(configuration, defaults))
    values = {
        "name": name,
        "purpose": purpose,
        "settings": {
            setting.key: {
                "value": setting.value,
                "default": setting.default,
                "choices": list(setting.choices),
                "help": setting.help,
            }
            for section in explained
            for setting in section.settings
        },
    }
    title = f"{name}\n{_wrapped(purpose, '  ')}"
    return Outcome(values=values, text="\n\n".join([title, *map(_section, explained)]))


def sections(
    configuration: Any, defaults: Any, key: str = "", documented: str = ""
) -> Iterator[Section]:
    """A configuration's settings, by the class that owns them, from the outermost inwards.

    Args:
        configuration: a tree of dataclasses.
        defaults: one of the same class.
        key: dotted key of the tree, empty for the whole.
        documented: what the tree is for.
    """
    helps = of_fields(type(configuration))
    values, usual = config.to_json(configuration), config.to_json(defaults)
    own: list[Setting] = []
    nested: list[Iterator[Section]] = []
    for field in dataclasses.fields(configuration):
        name = field.name
        dotted = f"{key}.{name}" if key else name
        child = getattr(configuration, name)
        if dataclasses.is_dataclass(child):
            nested.append(sections(child, getattr(defaults, name), dotted, _help(helps[name])))
        elif dotted != "name":
            own.append(
                Setting(
                    key=dotted,
                    value=values[name],
                    default=usual[name],
                    choices=_choices(field.type),
                    help=_help(helps[name]),
                )
            )
    if own:
        yield Section(key=key, help=documented, settings=tuple(own))
    for deeper in nested:
        yield from deeper


def _list() -> Outcome:
    purposes = {name: _purpose(name) for name in recipes.NETWORKS}
    text = (
        "Recipes (aiaic train --recipe NAME):\n"
        f"{_table(purposes)}\n\n"
        "Variants of each (--recipe NAME/VARIANT):\n"
        f"{_table(recipes.PURPOSES)}\n\n"
        f"{_wrapped(_USAGE)}"
    )
    return Outcome(values={"recipes": purposes, "variants": dict(recipes.PURPOSES)}, text=text)


def _purpose(name: str) -> str:
    """What a recipe is for: its function's docstring, and its variant's."""
    networks, _, variant = name.partition("/")
    purpose = _help(summary(recipes.NETWORKS[networks]))
    return f"{purpose} {recipes.PURPOSES[variant]}" if variant else purpose


def _prepared() -> Any:
    """The configuration of ``aiaic prepare`` without any option."""
    from workflows.commands import prepare  # noqa: PLC0415 (loads what recipes do not need)

    return prepare.build_settings(Prepare(dataset="folder", clips="", out=""))


def _choices(annotation: Any) -> tuple[str, ...]:
    return typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()


def _help(docstring: str) -> str:
    """A docstring for a terminal, where values are shown as JSON."""
    return re.sub(r"\bNone\b", "null", docstring).replace("``", "'")


def _section(section: Section) -> str:
    lines = [_wrapped(f"{section.key}: {section.help}")] if section.key else []
    for setting in section.settings:
        lines += [_line(setting), _wrapped(setting.help, " " * 6)]
    return "\n".join(lines)


def _line(setting: Setting) -> str:
    notes = []
    if setting.value != setting.default:
        notes.append(f"default: {_shown(setting.default)}")
    if setting.choices:
        notes.append(f"choices: {', '.join(setting.choices)}")
    return f"  {setting.key} = {_shown(setting.value)}" + (
        f"  ({'; '.join(notes)})" if notes else ""
    )


def _shown(value: Any) -> str:
    """A value as ``--set`` takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _table(rows: Mapping[str, str]) -> str:
    width = max(map(len, rows)) + 2
    return "\n".join(
        _wrapped(f"{name:<{width}}{purpose}", "  ", " " * (width + 2))
        for name, purpose in rows.items()
    )


def _wrapped(text: str, indent: str = "", hanging: str | None = None) -> str:
    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent if hanging is None else hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
