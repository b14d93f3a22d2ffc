"""Retries S3 calls, and turns their failures into actionable errors.

boto3 itself does not retry. Transient errors (503 SlowDown and other 5xx, timeouts, dropped
connections, truncated responses) are tried ``ATTEMPTS`` times with exponential backoff and jitter:
if the server never responds, a call fails after at most
``ATTEMPTS * (CONNECT_S + REQUEST_S) + 23`` seconds, about four minutes. SlowDown is tried four more
times. Permanent errors (403, 404, no bucket, a full store, a failed precondition) are not retried;
those that the user has to fix are raised as one of ``permanent_errors.PERMANENT``.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (botocore ships no types)

import random
import re
from collections.abc import Callable
from typing import Any, TypeVar

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from tenacity import RetryCallState, Retrying, retry_if_exception

ATTEMPTS = 8
"""Attempts per call, including the first."""
SLOWED_ATTEMPTS = 12
"""Attempts per call if the store throttles (503 SlowDown): in a build at full rate, some of 200,000
calls are throttled eight times (docs/scale.md)."""
LIST_ATTEMPTS = 3
"""Attempts per listing; Arrow itself tries each page five times."""
FIRST_WAIT_S = 0.2
"""Longest wait before the second attempt, in seconds; doubled before each further one."""
LONGEST_WAIT_S = 10.0
"""Longest wait between two attempts, in seconds."""

FAILURES = (boto.BotoCoreError, boto.ClientError, ResponseParserError, OSError)
"""Every error that boto3 and Arrow raise."""
_DROPPED = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError)
_TRANSIENT_CODES = re.compile(
    r"SlowDown|InternalError|RequestTimeout|Throttl|RequestLimitExceeded|BadDigest"
    r"|OperationAborted|ConditionalRequestConflict"
)
_TRANSIENT_ARROW = re.compile(
    r"AWS Error (SLOW_DOWN|NETWORK_CONNECTION|THROTTLING|INTERNAL_FAILURE|SERVICE_UNAVAILABLE"
    r"|REQUEST_TIMEOUT|UNKNOWN \(HTTP status (429|500|502|503|504)\))"
)
_MISSING_ARROW = "AWS Error NO_SUCH_BUCKET"
_DENIED_ARROW = re.compile(
    r"AWS Error (ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH"
    r"|UNKNOWN \(HTTP status (401|403)\))"
)
_FULL = re.compile(r"Quota|InsufficientStorage|StorageFull|HTTP status 507")
_T = TypeVar("_T")


def retried(place: str, call: Callable[[], _T], attempts: int | None = None) -> _T:
    """The result of a call, made at most ``attempts`` times (None: the defaults above).

    Raises FileNotFoundError if the object or bucket does not exist, PermissionError if access is
    denied, and OSError for any other failure.
    """

    def is_last(state: RetryCallState) -> bool:
        return state.attempt_number >= (attempts or _attempts_after(_error_of(state)))

    retrying = Retrying(
        retry=retry_if_exception(is_transient), stop=is_last, wait=pause_s, reraise=True
    )
    try:
        return retrying(call)
    except FAILURES as error:
        raise named(place, error) from None


def pause_s(state: RetryCallState) -> float:
    """Seconds to wait after a failed attempt: exponential backoff with jitter."""
    longest = min(FIRST_WAIT_S * 2 ** (state.attempt_number - 1), LONGEST_WAIT_S)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311


def is_transient(error: BaseException) -> bool:
    """Whether an error of boto3 or Arrow may be transient."""
    if isinstance(error, boto.ClientError):
        status, code = status_of(error)
        return status in (408, 429, 500, 502, 503, 504) or bool(_TRANSIENT_CODES.search(code))
    if isinstance(error, boto.SSLError):
        return False
    if isinstance(error, (*_DROPPED, ResponseParserError)):
        return True
    return bool(_TRANSIENT_ARROW.search(str(error)))


def status_of(error: BaseException) -> tuple[int, str]:
    """HTTP status and S3 error code of an error response; 0 and "" if there is none."""
    if not isinstance(error, boto.ClientError):
        return 0, ""
    answer: dict[str, Any] = error.response
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), str(answer.get("Error", {}).get("Code", ""))


def named(place: str, error: Exception) -> OSError:
    """An error of the store as a one-line OSError that names the place and what to do."""
    status, code = status_of(error)
    text = str(error)
    if status == 404 or isinstance(error, FileNotFoundError) or _MISSING_ARROW in text:
        return FileNotFoundError(f"{place} does not exist: check the path")
    if status == 507 or _FULL.search(code or text):
        return OSError(
            f"{place}: the store is full or over its quota ({code or status}); "
            "free space or raise the quota"
        )
    message = (
        f"{place}: {_reason(error)}. Check the bucket, endpoint (endpoint_override or "
        "AWS_ENDPOINT_URL_S3) and credentials"
    )
    if status in (401, 403) or _DENIED_ARROW.search(text):
        return PermissionError(message)
    return OSError(message)


def _reason(error: Exception) -> str:
    if isinstance(error, boto.ClientError):
        return "{} {}".format(*status_of(error))
    if isinstance(error, boto.HTTPClientError | boto.ConnectionError):
        return type(error).__name__  # its text may contain a presigned URL
    return " ".join(str(error).split())


def _attempts_after(error: BaseException) -> int:
    return SLOWED_ATTEMPTS if status_of(error)[1] == "SlowDown" else ATTEMPTS


def _error_of(state: RetryCallState) -> BaseException:
    error = state.outcome and state.outcome.exception()
    assert error  # only failed attempts are retried
    return error
