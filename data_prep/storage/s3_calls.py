"""What every S3 call needs: where an object lies, who asks, tries, and errors with a way out.

boto3 tries once; the ``ATTEMPTS`` here are all there is. What may pass by itself (503 SlowDown and
the other 5xx, time-outs, dropped connections, truncated answers) is tried that often, after
exponential waits with jitter: without any answer a call ends after
``ATTEMPTS * (CONNECT_S + REQUEST_S) + 23`` seconds at most, about four minutes; a store that asks
for patience gets four more tries. What will not pass
(403, 404, no bucket, a full store, a condition that is not met) is tried once.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (pyarrow and botocore ship no types)

import contextlib
import functools
import itertools
import os
import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import boto3.session
from botocore import exceptions as boto
from botocore.config import Config
from botocore.httpsession import URLLib3Session
from botocore.parsers import ResponseParserError
from botocore.utils import get_environ_proxies
from pyarrow import fs as arrow_fs

CONNECT_S = 10.0
"""Longest wait for a connection."""
REQUEST_S = 20.0
"""Longest silence within a call."""
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
_ARROW_ATTEMPTS = 5
_CONNECTIONS = 32
_QUERY_KEYS = {"endpoint_override", "scheme", "region"}

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
_FULL = re.compile(r"Quota|InsufficientStorage|StorageFull|HTTP status 507")
_LOCK = threading.Lock()
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Location:
    """An object, or a folder of objects, on a server."""

    place: str
    """The URI, for people."""
    bucket: str
    key: str
    """Empty: the whole bucket."""
    endpoint: str
    """host:port; empty: AWS itself."""
    scheme: str
    """Of the endpoint: http or https."""
    region: str

    @property
    def names(self) -> dict[str, str]:
        """What boto3 calls the object."""
        return {"Bucket": self.bucket, "Key": self.key}

    @property
    def prefix(self) -> str:
        """Of the keys of all that lies below."""
        return f"{self.key}/" if self.key else ""

    @property
    def client(self) -> Any:
        """boto3's client, which threads may share."""
        with _LOCK:  # making one is not safe in several threads
            return _client(*self._server(), CONNECT_S, REQUEST_S)

    @property
    def session(self) -> URLLib3Session:
        """Connections for requests that were signed beforehand."""
        with _LOCK:
            return _session(f"{self.scheme}://{self.endpoint}", CONNECT_S, REQUEST_S)

    @property
    def arrow(self) -> Any:
        """``pyarrow.fs.S3FileSystem``, which tries ``_ARROW_ATTEMPTS`` times on its own."""
        return _arrow(*self._server(), CONNECT_S, REQUEST_S)

    def _server(self) -> tuple[str, str, str, str]:
        # The last keeps the clients of different users apart.
        user = os.environ.get("AWS_ACCESS_KEY_ID", "") + os.environ.get("AWS_PROFILE", "")
        return self.endpoint, self.scheme, self.region, user


def locate(place: str) -> Location:
    """Where an ``s3://`` URI points.

    Raises ValueError for one without a bucket, with credentials or with an unknown query key.
    """
    parts = urlsplit(place)
    if "@" in parts.netloc:
        raise ValueError("an s3:// URI holds credentials: give them by environment variables")
    if not parts.netloc:
        raise ValueError(f"{place} names no bucket: write s3://bucket/key")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := set(query) - _QUERY_KEYS:
        known = ", ".join(sorted(_QUERY_KEYS))
        raise ValueError(
            f"s3://{parts.netloc}{parts.path}: unknown key {min(unknown)!r}; known are {known}"
        )
    endpoint, scheme = _endpoint(query)
    return Location(
        place=place,
        bucket=unquote(parts.netloc),
        key=unquote(parts.path).strip("/"),
        endpoint=endpoint,
        scheme=scheme,
        region=_region(query, parts.netloc, endpoint),
    )


def retried(at: Location, call: Callable[[], _T], attempts: int | None = None) -> _T:
    """The call's result, after ``attempts`` tries at most (None: as the module's constants say).

    Raises FileNotFoundError where object or bucket is not there, OSError for any other failure.
    """
    for attempt in itertools.count():
        try:
            return call()
        except FAILURES as error:
            slowed = status_of(error)[1] == "SlowDown"
            most = attempts or (SLOWED_ATTEMPTS if slowed else ATTEMPTS)
            if attempt + 1 >= most or not passes(error):
                raise named(at, error) from None
        wait(attempt)
    raise AssertionError("the last try returns or raises")


def wait(attempt: int) -> None:
    """Waits after a failed try, the longer the later, and never as long as others do."""
    longest = min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S)
    time.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311


def passes(error: Exception) -> bool:
    """Whether a failure may pass by itself."""
    if isinstance(error, boto.ClientError):
        status, code = status_of(error)
        return status in (408, 429, 500, 502, 503, 504) or bool(_PASSING_CODES.search(code))
    if isinstance(error, boto.SSLError):
        return False
    if isinstance(error, (*_DROPPED, ResponseParserError)):
        return True
    return bool(_PASSING_ARROW.search(str(error)))


def status_of(error: Exception) -> tuple[int, str]:
    """HTTP status and S3's code of a refusal; 0 and an empty string of another failure."""
    if not isinstance(error, boto.ClientError):
        return 0, ""
    answer: dict[str, Any] = error.response
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return int(status), str(answer.get("Error", {}).get("Code", ""))


def named(at: Location, error: Exception) -> OSError:
    """A store's failure as an error of one line that names the place and the way out."""
    status, code = status_of(error)
    text = str(error)
    if status == 404 or isinstance(error, FileNotFoundError) or "AWS Error NO_SUCH_BUCKET" in text:
        return FileNotFoundError(f"{at.place} is not there: check the path")
    if status == 507 or _FULL.search(code or text):
        return OSError(
            f"{at.place}: the store is full or over its quota ({code or status}); "
            "free space or raise the quota"
        )
    if isinstance(error, boto.ClientError):
        reason = f"{status} {code}"
    elif isinstance(error, boto.HTTPClientError | boto.ConnectionError):
        reason = type(error).__name__  # its text may hold a signed address
    else:
        reason = " ".join(text.split())
    return OSError(
        f"{at.place}: {reason}. Check bucket, endpoint (endpoint_override or AWS_ENDPOINT_URL_S3) "
        "and credentials"
    )


def _endpoint(query: dict[str, str]) -> tuple[str, str]:
    """Endpoint as host:port, and http or https; empty: AWS itself."""
    endpoint = (
        query.get("endpoint_override")
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or ""
    )
    scheme, mark, host = endpoint.rpartition("://")
    scheme = query.get("scheme") or (scheme if mark else "https")
    if scheme not in ("http", "https"):
        raise ValueError(f"endpoint {endpoint}: scheme {scheme!r} is neither http nor https")
    return host.rstrip("/"), scheme


def _region(query: dict[str, str], bucket: str, endpoint: str) -> str:
    named = (
        query.get("region")
        or os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION")
        or ""
    )
    # A server of one's own has no regions, but requests are signed for one.
    return named or ("us-east-1" if endpoint else _resolve_region(bucket))


@functools.lru_cache(maxsize=64)
def _resolve_region(bucket: str) -> str:
    for attempt in range(ATTEMPTS):
        with contextlib.suppress(OSError):
            return cast(str, arrow_fs.resolve_s3_region(bucket))
        wait(attempt)
    raise OSError(f"the region of bucket {bucket} is not known: set AWS_REGION")


@functools.lru_cache(maxsize=16)
def _client(
    endpoint: str, scheme: str, region: str, _user: str, connect_s: float, request_s: float
) -> Any:
    config = Config(
        connect_timeout=connect_s,
        read_timeout=request_s,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=_CONNECTIONS,
        signature_version="s3v4",  # a presigned address would get the old one in some regions
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    url = f"{scheme}://{endpoint}" if endpoint else None
    return boto3.session.Session().client("s3", endpoint_url=url, region_name=region, config=config)


@functools.lru_cache(maxsize=16)
def _session(server: str, connect_s: float, request_s: float) -> URLLib3Session:
    return URLLib3Session(
        verify=cast(bool, os.environ.get("AWS_CA_BUNDLE") or True),  # or a path
        proxies=get_environ_proxies(server),
        timeout=(connect_s, request_s),
        max_pool_connections=_CONNECTIONS,
    )


@functools.lru_cache(maxsize=16)
def _arrow(
    endpoint: str, scheme: str, region: str, _user: str, connect_s: float, request_s: float
) -> Any:
    return arrow_fs.S3FileSystem(
        endpoint_override=endpoint or None,
        scheme=scheme,
        region=region,
        connect_timeout=connect_s,
        request_timeout=request_s,
        allow_delayed_open=True,
        # The empty object that marks a folder is a file to some servers (rclone).
        check_directory_existence_before_creation=True,
        retry_strategy=arrow_fs.AwsStandardS3RetryStrategy(max_attempts=_ARROW_ATTEMPTS),
    )
