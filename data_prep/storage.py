"""A place (path, ``file://`` or ``s3://`` URI) -> a filesystem, and publication without halves.

``s3://bucket/key?endpoint_override=host:port&scheme=http&region=...`` names a server of one's own;
``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL`` does so for every URI that names none. Credentials
come from the environment or AWS's usual chain, never from a URI. Some servers (``rclone serve s3``)
need ``AWS_REQUEST_CHECKSUM_CALCULATION=when_required``.

Nothing is streamed to its final name while it is being made: an exception in the middle of a write
closes the stream, which would publish the truncated object. What is published exists whole on this
machine first, and is read back from an object store and compared by SHA-256.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (pyarrow ships no types)

import contextlib
import functools
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from pyarrow import fs as arrow_fs

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_QUERY_KEYS = {"endpoint_override", "scheme", "region"}
_CHUNK_BYTES = 1 << 20
_S3_ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file as listed."""

    name: str
    """Path relative to the place that was listed, with ``/``."""
    uri: str
    """Path or URI of the file itself."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Time of the last change, nanoseconds since 1970."""

    @property
    def stamp(self) -> str:
        """Tells whether the file is still the one that was read, without reading it."""
        return f"{self.size}:{self.mtime_ns}"


def is_local(place: str) -> bool:
    """Whether a place lies on this machine's file system."""
    return _scheme(place) in ("", "file")


def local_path(place: str) -> Path:
    """The path of a local place."""
    if not is_local(place):
        raise ValueError(f"{place} is not on this machine's file system")
    if _scheme(place) == "":
        return Path(place)
    parts = urlsplit(place)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"{place} names the host {parts.netloc}: write file:///path")
    return Path(unquote(parts.path))


def join(place: str, *names: str) -> str:
    """The place of something below ``place``; a URI keeps its query."""
    if _scheme(place) == "":
        return str(Path(place, *names))
    head, mark, query = place.partition("?")
    tail = "/".join(quote(name) for name in names)
    return f"{head.rstrip('/')}/{tail}{mark}{query}"


def name_of(place: str) -> str:
    """The last name of a place."""
    if _scheme(place) == "":
        return Path(place).name
    return unquote(place.partition("?")[0].rstrip("/").rpartition("/")[2])


def filesystem(place: str) -> tuple[Any, str]:
    """``pyarrow.fs.FileSystem`` of a place, and the path on it.

    Raises ValueError for an unknown scheme, an S3 URI without a bucket, with credentials or with an
    unknown query key.
    """
    scheme = _scheme(place)
    if scheme in ("", "file"):
        return arrow_fs.LocalFileSystem(), str(local_path(place).absolute())
    if scheme != "s3":
        raise ValueError(f"{place}: unknown scheme {scheme}://; use a path, file:// or s3://")
    parts = urlsplit(place)
    if "@" in parts.netloc:
        raise ValueError("an s3:// URI holds credentials: give them by environment variables")
    if not parts.netloc:
        raise ValueError(f"{place} names no bucket: write s3://bucket/key")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := set(query) - _QUERY_KEYS:
        known = ", ".join(sorted(_QUERY_KEYS))
        raise ValueError(f"{place}: unknown key {sorted(unknown)[0]!r}; known are {known}")
    path = unquote(f"{parts.netloc}{parts.path}").rstrip("/")
    return _s3(*_endpoint(query), _region(query, parts.netloc), _credentials_mark()), path


def exists(place: str) -> bool:
    """Whether a file or a folder lies there."""
    return size_of(place) is not None or bool(_info(place).type == arrow_fs.FileType.Directory)


def size_of(place: str) -> int | None:
    """Bytes of the file that lies there; None where none does."""
    info = _info(place)
    return cast(int, info.size) if info.type == arrow_fs.FileType.File else None


def list_files(place: str) -> list[StoredFile]:
    """Every file below a folder, sorted by name, without hidden ones (a part starts with ``.``).

    Raises FileNotFoundError where there is no such folder.
    """
    system, root = filesystem(place)
    if _info(place).type != arrow_fs.FileType.Directory:
        raise FileNotFoundError(f"{place} is no folder that can be listed: check the path")
    files: list[StoredFile] = []
    for info in cast(
        "list[Any]", system.get_file_info(arrow_fs.FileSelector(root, recursive=True))
    ):
        if info.type != arrow_fs.FileType.File:
            continue
        name = str(PurePosixPath(info.path).relative_to(root))
        if not any(part.startswith(".") for part in PurePosixPath(name).parts):
            size, mtime_ns = cast(int, info.size), cast(int, info.mtime_ns)
            files.append(StoredFile(name=name, uri=join(place, name), size=size, mtime_ns=mtime_ns))
    return sorted(files, key=lambda file: file.name)


def read_bytes(place: str) -> bytes:
    """The whole file. Raises FileNotFoundError where none lies there."""
    system, path = filesystem(place)
    with _open(system, path, place) as stream:
        return cast(bytes, stream.read())


def read_range(place: str, offset: int, length: int) -> bytes:
    """``length`` bytes from ``offset``; fewer mean a damaged file: ValueError."""
    system, path = filesystem(place)
    with _open(system, path, place) as stream:
        content = cast(bytes, stream.read_at(length, offset))
    if len(content) != length:
        raise ValueError(
            f"{place} ends early: {len(content)} of {length} bytes at {offset}; verify the shards"
        )
    return content


def write_bytes(place: str, content: bytes) -> None:
    """Writes a file so that its name only ever holds the old or the new content."""
    if is_local(place):
        _replace(local_path(place), lambda part: part.write_bytes(content))
    else:
        system, path = filesystem(place)
        with _named_failure(place), system.open_output_stream(path) as stream:
            stream.write(content)
        if _arrived(place) != (len(content), hashlib.sha256(content).hexdigest()):
            raise OSError(f"{place} differs from what was written there; run again")


def publish(local_file: Path, place: str) -> None:
    """Copies a finished local file to its final name, whole or not at all.

    Raises OSError where what arrived differs from what was sent; it is removed then.
    """
    if is_local(place):
        _replace(local_path(place), lambda part: shutil.copyfile(local_file, part))
        return
    system, path = filesystem(place)
    try:
        with (
            _named_failure(place),
            local_file.open("rb") as source,
            system.open_output_stream(path) as stream,
        ):
            shutil.copyfileobj(source, stream, _CHUNK_BYTES)
        with local_file.open("rb") as source:
            sent = local_file.stat().st_size, hashlib.file_digest(source, "sha256").hexdigest()
        if (arrived := _arrived(place)) != sent:
            raise OSError(f"{place}: {arrived[0]} bytes of {sent[0]} arrived, or differ; run again")
    except OSError:
        # Closing the stream on an error publishes what was written so far.
        with contextlib.suppress(OSError):
            delete(place)
        raise


def delete(place: str) -> None:
    """Deletes a file; nothing happens where none lies.

    Not by Arrow, which puts an empty object in the place of the folder, as some servers refuse.
    """
    if is_local(place):
        local_path(place).unlink(missing_ok=True)
        return
    _, path = filesystem(place)
    bucket, _, key = path.partition("/")
    query = dict(parse_qsl(urlsplit(place).query))
    client = _s3_client(*_endpoint(query), _region(query, bucket), _credentials_mark())
    try:
        client.delete_object(Bucket=bucket, Key=key)
    except (BotoCoreError, ClientError) as error:
        raise OSError(f"{place} could not be deleted: {error}") from error


def delete_folder(place: str, first: str) -> None:
    """Deletes every file below a folder, the one that is called ``first`` before the others."""
    for file in sorted(list_files(place), key=lambda file: file.name != first):
        delete(file.uri)
    if is_local(place):
        shutil.rmtree(local_path(place))


def upload_folder(folder: Path, place: str) -> None:
    """Publishes every file below a local folder under a place."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        publish(path, join(place, path.relative_to(folder).as_posix()))


def download_folder(place: str, folder: Path) -> None:
    """Copies every file below a place into a local folder."""
    for file in list_files(place):
        target = folder / file.name
        content = read_bytes(file.uri)
        _replace(target, functools.partial(Path.write_bytes, data=content))


def _scheme(place: str) -> str:
    match = _SCHEME.match(place)
    return match[1].lower() if match else ""


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


def _region(query: dict[str, str], bucket: str) -> str:
    named = (
        query.get("region")
        or os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION")
        or ""
    )
    # A server of one's own has no regions, but requests are signed for one.
    return named or ("us-east-1" if _endpoint(query)[0] else arrow_fs.resolve_s3_region(bucket))


def _credentials_mark() -> str:
    """Keeps file systems of different users apart in the cache."""
    return os.environ.get("AWS_ACCESS_KEY_ID", "") + os.environ.get("AWS_PROFILE", "")


@functools.lru_cache(maxsize=16)
def _s3(endpoint: str, scheme: str, region: str, _credentials: str) -> Any:
    return arrow_fs.S3FileSystem(
        endpoint_override=endpoint or None,
        scheme=scheme,
        region=region,
        connect_timeout=10,
        request_timeout=60,
        allow_delayed_open=True,
        # The empty object that marks a folder is a file to some servers (rclone).
        check_directory_existence_before_creation=True,
        retry_strategy=arrow_fs.AwsStandardS3RetryStrategy(max_attempts=_S3_ATTEMPTS),
    )


@functools.lru_cache(maxsize=16)
def _s3_client(endpoint: str, scheme: str, region: str, _credentials: str) -> Any:
    url = f"{scheme}://{endpoint}" if endpoint else None
    return boto3.client("s3", endpoint_url=url, region_name=region)


@contextlib.contextmanager
def _named_failure(place: str) -> Generator[None, None, None]:
    """A store's failure as an error that names the place and the way out."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(f"{place} is not there: check the path") from None
    except OSError as error:
        if "AWS Error" not in str(error):
            raise
        raise OSError(
            f"{place}: {error}. Check bucket, endpoint (endpoint_override or AWS_ENDPOINT_URL_S3) "
            "and credentials"
        ) from None


def _info(place: str) -> Any:
    system, path = filesystem(place)
    with _named_failure(place):
        return system.get_file_info(path)


def _open(system: Any, path: str, place: str) -> Any:
    with _named_failure(place):
        return system.open_input_file(path)


def _replace(final: Path, write: Callable[[Path], object]) -> None:
    """Writes beside the final name, then takes its place."""
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(f".{final.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        write(part)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(final)
    finally:
        part.unlink(missing_ok=True)


def _arrived(place: str) -> tuple[int, str]:
    """Size and SHA-256 of what lies there, read back."""
    system, path = filesystem(place)
    digest, size = hashlib.sha256(), 0
    with _open(system, path, place) as stream:
        while chunk := cast(bytes, stream.read(_CHUNK_BYTES)):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()
