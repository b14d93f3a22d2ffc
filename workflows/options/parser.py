"""The command line, made from the options of all commands."""

import dataclasses
import functools
import operator
from collections.abc import Sequence
from typing import Annotated, Any

import tyro
from tyro.constructors import (
    MISSING,
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from workflows.options import COMMANDS
from workflows.options.base import Command
from workflows.options.docstrings import of_fields, summary

_DESCRIPTION = (
    "Audio-infused automatic image colorization: clips -> shards -> three training stages -> "
    "evaluation and coloured pictures. 'aiaic COMMAND --help' explains each command. PLACE is a "
    "path or a URI such as s3://bucket/key."
)
_VERSION = "Print the versions of aiaic, Python, PyTorch and Ray."


def parse(arguments: Sequence[str]) -> Command:
    """Arguments -> the options of a command; exits with code 2 on wrong usage."""
    root: Any = _root(arguments[0] if arguments else None)
    parsed = tyro.cli(
        root,
        prog="aiaic",
        description=_DESCRIPTION,
        args=arguments,
        config=(
            tyro.conf.FlagCreatePairsOff,
            tyro.conf.OmitSubcommandPrefixes,
            tyro.conf.OmitArgPrefixes,
        ),
        registry=_registry(),
    )
    return parsed.command


def _root(named: str | None) -> type:
    """The whole command line as a class; with one line for every command but the named one."""
    commands = [
        Annotated[
            kind,
            tyro.conf.subcommand(
                name, description=None if name == named else summary(kind), prefix_name=False
            ),
        ]
        for name, kind in COMMANDS.items()
    ]
    version = Annotated[bool, tyro.conf.arg(help_behavior_hint="", help=_VERSION)]
    return dataclasses.make_dataclass(
        "aiaic",
        [
            ("command", functools.reduce(operator.or_, commands)),
            ("version", version, dataclasses.field(default=False)),
        ],
        kw_only=True,
    )


def _registry() -> ConstructorRegistry:
    """Options whose help is one flowing paragraph.

    tyro keeps the line breaks of indented docstrings, which tear its help and break its shell
    completion apart.
    """
    registry = ConstructorRegistry()

    @registry.struct_rule
    def command(info: StructTypeInfo) -> StructConstructorSpec | None:
        if not (isinstance(info.type, type) and issubclass(info.type, Command)):
            return None
        documented = functools.cache(functools.partial(of_fields, info.type))
        return StructConstructorSpec(
            instantiate=info.type,
            fields=tuple(
                StructFieldSpec(
                    name=field.name,
                    type=field.type,  # pyright: ignore[reportArgumentType] (no postponed annotations)
                    default=MISSING if field.default is dataclasses.MISSING else field.default,
                    helptext=lambda name=field.name: documented().get(name),
                )
                for field in dataclasses.fields(info.type)
            ),
        )

    return registry
