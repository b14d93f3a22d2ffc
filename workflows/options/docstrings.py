"""The docstrings under the fields of dataclasses, which are their help."""

import dataclasses

import docstring_parser


def of_fields(cls: type) -> dict[str, str]:
    """Each documented field's docstring as one line of text; inherited ones included."""
    owners = [owner for owner in reversed(cls.__mro__) if dataclasses.is_dataclass(owner)]
    return {
        field.arg_name: " ".join(field.description.split())
        for owner in owners
        for field in docstring_parser.parse_from_object(owner).params
        if field.description
    }


def summary(documented: object) -> str:
    """The first line of the docstring of a class or a function."""
    return (documented.__doc__ or "").strip().partition("\n")[0]
