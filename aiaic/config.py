"""Configurations: trees of frozen dataclasses, written as plain JSON and changed by dotted keys."""

import dataclasses
import difflib
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

T = TypeVar("T")

# Types of fields with a range, which is checked wherever a configuration is read or changed.
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Timeout = Annotated[float, Field(ge=1, allow_inf_nan=False)]
AtLeast0 = Annotated[int, Field(ge=0)]
AtLeast1 = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
Width = Annotated[int, Field(ge=1, le=4096)]
"""Channels of a network."""
Pixels = Annotated[int, Field(ge=8, le=4096, multiple_of=4)]
"""Side of a square picture; the backbone ``compact`` folds 4 x 4 pixels into one."""


_WITHOUT_VALUE = ("missing", "unexpected_keyword_argument", "value_error")


def to_json(config: Any) -> dict[str, Any]:
    """The configuration as plain JSON values (tuples become lists)."""
    return _adapter(type(config)).dump_python(config, mode="json")


def from_json(cls: type[T], values: Mapping[str, Any]) -> T:
    """Build ``cls`` from plain JSON values.

    Raises:
        ValueError: a key is unknown or missing, or a value has the wrong type; names the key.
    """
    try:
        return _adapter(cls).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        value = "" if first["type"] in _WITHOUT_VALUE else f", not {first['input']!r}"
        raise ValueError(f"configuration key '{key}': {first['msg'].lower()}{value}") from None


def read_json(file: str, what: str) -> dict[str, Any]:
    """Read the JSON object in a file that a user names.

    Raises:
        FileNotFoundError: there is no such file; ``what`` says what it should be.
        ValueError: it does not contain a JSON object.
    """
    path = Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"no {what} at '{file}'")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{file}' is not JSON: {error}") from None
    if not isinstance(tree, dict):
        raise ValueError(f"'{file}' does not contain a JSON object")
    return tree


def describe(values: Mapping[str, Any]) -> str:
    """``KEY=VALUE`` texts for people, in the form that :func:`parse_settings` reads."""
    return " ".join(f"{key}={_shown(value)}" for key, value in values.items())


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def check(config: Any) -> None:
    """Check a configuration that was constructed in Python.

    Raises:
        ValueError: a value has the wrong type or is out of its range; names the key.
    """
    from_json(type(config), to_json(config))


def override(config: T, values: Mapping[str, Any]) -> T:
    """A copy of ``config`` with dotted keys replaced, e.g. ``{"model.guidance.tau": 0.2}``.

    Raises:
        ValueError: a key is unknown (similar ones are named), or a value has the wrong type.
    """
    tree = to_json(config)
    known = dotted_keys(tree)
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=3) or sorted(known)[:3]
            raise ValueError(f"unknown configuration key '{key}'; near ones: {', '.join(near)}")
        *parents, leaf = key.split(".")
        node = functools.reduce(lambda inner, name: inner[name], parents, tree)
        node[leaf] = value
    return from_json(type(config), tree)


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Parse ``KEY=VALUE`` texts into dotted keys and values: JSON, otherwise text.

    Raises:
        ValueError: a text has no ``=`` or no key.
    """
    values: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"setting '{text}' is not of the form KEY=VALUE")
        try:
            values[key] = json.loads(value)
        except json.JSONDecodeError:
            values[key] = value
    return values


def dotted_keys(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """All leaves of a JSON tree by their dotted keys."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= dotted_keys(value, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves


@functools.cache
def _adapter(cls: type) -> TypeAdapter:
    _forbid_unknown_keys(cls)
    return TypeAdapter(cls)


def _forbid_unknown_keys(cls: type) -> None:
    if not dataclasses.is_dataclass(cls):
        return
    cls.__pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[attr-defined]
    for field in dataclasses.fields(cls):
        if isinstance(field.type, type):
            _forbid_unknown_keys(field.type)
