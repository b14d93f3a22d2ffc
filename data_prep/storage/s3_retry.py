"""Retries of S3 calls, and their failures as errors with a way out.

boto3 tries once; the ``ATTEMPTS`` here are all there is. What may pass by itself (503 SlowDown and
the other 5xx, time-outs, dropped connections, truncated answers) is tried that often, after
exponential waits with jitter: without any answer a call ends after
``ATTEMPTS * (CONNECT_S + REQUEST_S) + 23`` seconds at most, about four minutes; a store that asks
for patience gets four more tries. What will not pass (403, 404, no bucket, a full store, a
condition that is not met) is tried once, and raised as one of ``retry.PERMANENT`` where a person
has to fix it.
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
"""How often a call is tried in all."""
SLOWED_ATTEMPTS = 12
"""How often where the store asks for patience (503 SlowDown): in a build at full rate some calls of
200,000 are refused eight times (docs/scale.md)."""
LIST_ATTEMPTS = 3
"""How often a listing is; Arrow tries each of its pages five times on its own."""
FIRST_WAIT_S = 0.2
"""Before the second try, at most; doubled before each further one."""
LONGEST_WAIT_S = 10.0
"""Between two tries."""

FAILURES = (boto.BotoCoreError, boto.ClientError, ResponseParserError, OSError)
"""All that boto3 and Arrow raise."""
_DROPPED = (boto.HTTPClientError, boto.ConnectionError, boto.IncompleteReadError)
_PASSING_CODES = re.compile(
    r"SlowDown|InternalError|RequestTimeout|Throttl|RequestLimitExceeded|BadDigest"
    r"|OperationAborted|ConditionalRequestConflict"
)
_PASSING_ARROW = re.compile(
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
    """The call's result, after ``attempts`` tries at most (None: as the module's constants say).

    Raises FileNotFoundError where object or bucket is not there, PermissionError where the store
    refuses access, OSError for any other failure.
    """

    def is_last(state: RetryCallState) -> bool:
        return state.attempt_number >= (attempts or _attempts_after(_error_of(state)))

    retrying = Retrying(
        retry=retry_if_exception(may_pass), stop=is_last, wait=pause_s, reraise=True
    )
    try:
        return retrying(call)
    except FAILURES as error:
        raise named(place, error) from None


def pause_s(state: RetryCallState) -> float:
    """Seconds to wait after a failed try: longer after each, and never the same for all callers."""
    longest = min(FIRST_WAIT_S * 2 ** (state.attempt_number - 1), LONGEST_WAIT_S)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311


def may_pass(error: BaseException) -> bool:
    """Whether a failure of boto3 or Arrow may pass by itself."""
    if isinstance(error, boto.ClientError):
        status, code = status_of(error)
        return status in (408, 429, 500, 502, 503, 504) or bool(_PASSING_CODES.search(code))
    if isinstance(error, boto.SSLError):
        return False
    if isinstance(error, (*_DROPPED, ResponseParserError)):
        return True
    return bool(_PASSING_ARROW.search(str(error)))


def status_of(error: BaseException) -> tuple[int, str]:
    """HTTP status and S3's code of a refusal; 0 and an empty string of another failure."""
    if not isinstance(error, boto.ClientError):
        return 0, ""
    answer: dict[str, Any] = error.response
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), str(answer.get("Error", {}).get("Code", ""))


def named(place: str, error: Exception) -> OSError:
    """A store's failure as an error of one line that names the place and the way out."""
    status, code = status_of(error)
    text = str(error)
    if status == 404 or isinstance(error, FileNotFoundError) or _MISSING_ARROW in text:
        return FileNotFoundError(f"{place} is not there: check the path")
    if status == 507 or _FULL.search(code or text):
        return OSError(
            f"{place}: the store is full or over its quota ({code or status}); "
            "free space or raise the quota"
        )
    message = (
        f"{place}: {_reason(error)}. Check bucket, endpoint (endpoint_override or "
        "AWS_ENDPOINT_URL_S3) and credentials"
    )
    if status in (401, 403) or _DENIED_ARROW.search(text):
        return PermissionError(message)
    return OSError(message)


def _reason(error: Exception) -> str:
    if isinstance(error, boto.ClientError):
        return "{} {}".format(*status_of(error))
    if isinstance(error, boto.HTTPClientError | boto.ConnectionError):
        return type(error).__name__  # its text may hold a signed address
    return " ".join(str(error).split())


def _attempts_after(error: BaseException) -> int:
    return SLOWED_ATTEMPTS if status_of(error)[1] == "SlowDown" else ATTEMPTS


def _error_of(state: RetryCallState) -> BaseException:
    error = state.outcome and state.outcome.exception()
    assert error  # only a failed try is followed by another
    return error
