"""Settings that Ray takes from environment variables and from nowhere else."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def overridden(name: str, value: str) -> Iterator[None]:
    """Within the context an environment variable has this value."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
