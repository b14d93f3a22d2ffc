"""The location of an object, and the clients of its server.

boto3 tries each call once and Arrow a few times; all other retries are made by ``s3_retry``.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (pyarrow and botocore ship no types)

import functools
import os
import threading
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import boto3.session
from botocore.config import Config
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies
from pyarrow import fs as arrow_fs

from data_prep.storage.permanent_errors import PERMANENT
from data_prep.storage.s3_retry import retried

CONNECT_S = 10.0
"""Timeout for connecting, in seconds."""
REQUEST_S = 20.0
"""Timeout for each read within a call, in seconds."""
_ARROW_ATTEMPTS = 5
_CONNECTIONS = 32
_QUERY_KEYS = {"endpoint_override", "scheme", "region"}
_LOCK = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Location:
    """An object, or a folder of objects, on a server."""

    place: str
    """The URI, for error messages."""
    bucket: str
    key: str
    """Empty for the whole bucket."""
    endpoint: str
    """``host:port``; empty for AWS."""
    scheme: str
    """Scheme of the endpoint: http or https."""
    region: str

    @property
    def names(self) -> dict[str, str]:
        """Arguments by which boto3 identifies the object."""
        return {"Bucket": self.bucket, "Key": self.key}

    @property
    def prefix(self) -> str:
        """Prefix of the keys of all objects in the folder."""
        return f"{self.key}/" if self.key else ""

    @property
    def client(self) -> Any:
        """boto3's client; it is safe to share between threads."""
        with _LOCK:  # creating a client is not thread-safe
            return _client(*self._server(), CONNECT_S, REQUEST_S)

    @property
    def session(self) -> URLLib3Session:
        """Connection pool for presigned requests."""
        with _LOCK:
            return _session(f"{self.scheme}://{self.endpoint}", CONNECT_S, REQUEST_S)

    @property
    def arrow(self) -> Any:
        """``pyarrow.fs.S3FileSystem``, which itself makes up to ``_ARROW_ATTEMPTS`` attempts."""
        return _arrow(*self._server(), CONNECT_S, REQUEST_S)

    def _server(self) -> tuple[str, str, str, str]:
        # The user keeps clients with different credentials apart.
        user = os.environ.get("AWS_ACCESS_KEY_ID", "") + os.environ.get("AWS_PROFILE", "")
        return self.endpoint, self.scheme, self.region, user


def locate(place: str) -> Location:
    """The location of an ``s3://`` URI.

    Raises ValueError if it has no bucket, contains credentials, or has an unknown query key.
    """
    parts = urlsplit(place)
    if "@" in parts.netloc:
        raise ValueError("an s3:// URI contains credentials: set them as environment variables")
    if not parts.netloc:
        raise ValueError(f"{place} has no bucket: write s3://bucket/key")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := set(query) - _QUERY_KEYS:
        known = ", ".join(sorted(_QUERY_KEYS))
        raise ValueError(
            f"s3://{parts.netloc}{parts.path}: unknown key {min(unknown)!r}; use one of {known}"
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


def _endpoint(query: dict[str, str]) -> tuple[str, str]:
    """Endpoint as ``host:port`` (empty for AWS), and http or https."""
    endpoint = (
        query.get("endpoint_override")
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or ""
    )
    scheme, mark, host = endpoint.rpartition("://")
    scheme = query.get("scheme") or (scheme if mark else "https")
    if scheme not in ("http", "https"):
        raise ValueError(f"endpoint {endpoint}: scheme {scheme!r} must be http or https")
    return host.rstrip("/"), scheme


def _region(query: dict[str, str], bucket: str, endpoint: str) -> str:
    named = (
        query.get("region")
        or os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION")
        or ""
    )
    # A custom server has no regions, but requests are signed for one.
    return named or ("us-east-1" if endpoint else _resolve_region(bucket))


@functools.lru_cache(maxsize=64)
def _resolve_region(bucket: str) -> str:
    try:
        return retried(f"s3://{bucket}", lambda: cast(str, arrow_fs.resolve_s3_region(bucket)))
    except PERMANENT:
        raise
    except OSError as error:
        raise OSError(f"the region of s3://{bucket} is unknown: set AWS_REGION ({error})") from None


@functools.lru_cache(maxsize=16)
def _client(
    endpoint: str, scheme: str, region: str, _user: str, connect_s: float, request_s: float
) -> Any:
    config = Config(
        connect_timeout=connect_s,
        read_timeout=request_s,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=_CONNECTIONS,
        signature_version="s3v4",  # else presigned URLs use the old one in some regions
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    url = f"{scheme}://{endpoint}" if endpoint else None
    return boto3.session.Session().client("s3", endpoint_url=url, region_name=region, config=config)


@functools.lru_cache(maxsize=16)
def _session(server: str, connect_s: float, request_s: float) -> URLLib3Session:
    return URLLib3Session(
        verify=cast(bool, os.environ.get("AWS_CA_BUNDLE") or True),  # True, or a path
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
        # Some servers (rclone) treat the empty object that marks a folder as a file.
        check_directory_existence_before_creation=True,
        retry_strategy=arrow_fs.AwsStandardS3RetryStrategy(max_attempts=_ARROW_ATTEMPTS),
    )
