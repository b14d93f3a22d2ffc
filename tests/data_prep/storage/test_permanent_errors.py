"""Which storage failures are retried."""

import errno

import pytest
from botocore import exceptions as boto

from data_prep import storage
from data_prep.storage import s3_retry


def refusal(status: int, code: str) -> boto.ClientError:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return boto.ClientError(answer, "GetObject")


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError("no answer"), True),
        (OSError(errno.ENOSPC, "full"), True),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (NotADirectoryError(), False),
        (ValueError("damaged"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_storage_failures_may_pass_unless_a_person_has_to_fix_them(error, passes):
    assert storage.may_pass(error) is passes


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (refusal(403, "AccessDenied"), False),
        (refusal(401, "Unauthorized"), False),
        (refusal(404, "NoSuchBucket"), False),
        (OSError("AWS Error ACCESS_DENIED during ListObjectsV2 operation"), False),
        (OSError("AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation"), False),
        (refusal(503, "SlowDown"), True),
        (refusal(403, "QuotaExceeded"), True),  # space may be freed
        (refusal(507, "InsufficientStorage"), True),
        (boto.ReadTimeoutError(endpoint_url="http://host"), True),
    ],
)
def test_a_refusal_by_s3_is_raised_as_the_right_kind_of_error(error, passes):
    raised = s3_retry.named("s3://bucket/key", error)
    assert storage.may_pass(raised) is passes
    assert str(raised).startswith("s3://bucket/key")


def test_only_failures_that_may_pass_are_retried(monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    calls = []

    def fail(error: Exception):
        calls.append(error)
        raise error

    for error, tries in (
        (refusal(403, "AccessDenied"), 1),
        (refusal(500, "InternalError"), s3_retry.ATTEMPTS),
        (refusal(503, "SlowDown"), s3_retry.SLOWED_ATTEMPTS),
    ):
        calls.clear()
        with pytest.raises(OSError, match="s3://bucket/key: "):
            s3_retry.retried("s3://bucket/key", lambda error=error: fail(error))
        assert len(calls) == tries
