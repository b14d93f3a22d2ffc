"""Pages from templates."""

import jinja2


def environment() -> jinja2.Environment:
    """Templates in which all that is put in is escaped, and nothing may be missing."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("workflows.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
