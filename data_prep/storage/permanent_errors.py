"""Which storage failures a person has to fix; all others may pass by themselves.

``s3_retry`` raises a store's refusals as these kinds; the reader of samples and the saver of
checkpoints retry by them.
"""

PERMANENT = (
    FileNotFoundError,
    PermissionError,
    NotADirectoryError,
    IsADirectoryError,
    FileExistsError,
)
"""Kinds of OSError that no retry fixes. A full disk is not among them: space may be freed."""


def may_pass(error: BaseException) -> bool:
    """Whether an error is a storage failure that may pass by itself and is worth a retry."""
    return isinstance(error, OSError) and not isinstance(error, PERMANENT)
