"""The environment of the page templates."""

import jinja2


def environment() -> jinja2.Environment:
    """An environment that escapes all values and fails on missing ones."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("workflows.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
