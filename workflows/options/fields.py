"""Kinds of options: how the help names their values."""

from typing import Annotated

from tyro.conf import UseAppendAction, arg

Place = Annotated[str, arg(metavar="PLACE")]
MaybePlace = Annotated[str | None, arg(metavar="PLACE", help_behavior_hint="")]
File = Annotated[str, arg(metavar="FILE")]
MaybeFile = Annotated[str | None, arg(metavar="FILE", help_behavior_hint="")]
Files = Annotated[tuple[tuple[str, ...], ...], UseAppendAction, arg(metavar="FILE ...")]
Folder = Annotated[str, arg(metavar="DIR")]
MaybeFolder = Annotated[str | None, arg(metavar="DIR", help_behavior_hint="")]
Count = Annotated[int, arg(metavar="N")]
MaybeCount = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
WorkerRange = Annotated[str, arg(metavar="N|MIN:MAX")]
Number = Annotated[float, arg(metavar="X")]
MaybeNumber = Annotated[float | None, arg(metavar="X", help_behavior_hint="")]
MaybeSeconds = Annotated[float | None, arg(metavar="S", help_behavior_hint="")]
Name = Annotated[str, arg(metavar="NAME")]
MaybeName = Annotated[str | None, arg(metavar="NAME", help_behavior_hint="")]
Uri = Annotated[str | None, arg(metavar="URI", help_behavior_hint="")]
Url = Annotated[str | None, arg(metavar="URL", help_behavior_hint="")]
Settings = Annotated[
    tuple[tuple[str, ...], ...], UseAppendAction, arg(metavar="KEY=VALUE ...", name="set")
]


def flat(groups: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """The values of a flag that may take several and may be repeated."""
    return tuple(value for group in groups for value in group)
