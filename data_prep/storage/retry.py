"""Which failures of storage a person has to fix; all others may pass by themselves.

The one list for every package: ``s3_retry`` raises a store's refusals as these kinds, the reader of
samples retries by it, and so does the saver of checkpoints, which asks its store.
"""

PERMANENT = (
    FileNotFoundError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
    FileExistsError,
)
"""Kinds of OSError that no retry mends. A full disk is not among them: someone may free space."""


def may_pass(error: BaseException) -> bool:
    """Whether this is a failure of storage that may pass by itself, so that a retry makes sense."""
    return isinstance(error, OSError) and not isinstance(error, PERMANENT)
