"""Which storage errors the user has to fix; all others may be transient.

``s3_retry`` maps S3 errors to these types; the sample reader and the checkpoint saver use them to
decide whether to retry.
"""

PERMANENT = (
    FileNotFoundError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
    FileExistsError,
)
"""Subclasses of OSError that a retry cannot fix. A full disk is not one: space may be freed."""


def may_pass(error: BaseException) -> bool:
    """Whether an error is a storage error that may be transient and is worth a retry."""
    return isinstance(error, OSError) and not isinstance(error, PERMANENT)
