"""Places on S3: reads, writes, conditional writes, listings and deletions.

boto3 does all but two of these: objects are read through presigned URLs (see ``s3_objects``), and
Arrow lists, in a fifteenth of boto3's CPU time. For retries see ``s3_retry``.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (pyarrow and botocore ship no types)

import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from botocore.exceptions import ClientError
from pyarrow import fs as arrow_fs
from tenacity import (
    RetryError,
    Retrying,
    TryAgain,
    retry_if_exception_type,
    stop_after_attempt,
)

from data_prep.storage import s3_objects, s3_retry
from data_prep.storage.s3_client import Location, locate
from data_prep.storage.s3_retry import retried

MULTIPART_BYTES = 64 << 20
"""Larger files are uploaded in parts (multipart upload)."""
SETTLE_S = 2.0
"""How long to wait before checking who won, at a store that ignores preconditions: by then the
writes of others who read the old content before us have arrived."""
_NO_ETAG = '"00000000000000000000000000000000"'
_refuses: dict[tuple[str, str], bool] = {}
"""(endpoint, bucket) -> whether the store refuses a write whose precondition fails."""


class ConflictError(OSError):
    """The file has changed since the writer last read it."""


def filesystem(place: str) -> tuple[Any, str]:
    """``pyarrow.fs.S3FileSystem`` of a place, and the path on it.

    For libraries that need one. Its reads do not detect truncated responses.
    """
    at = locate(place)
    return at.arrow, f"{at.bucket}/{at.key}".rstrip("/")


def size_of(place: str) -> int | None:
    """Size of an object in bytes; None if it does not exist."""
    at = locate(place)
    try:
        return int(s3_objects.head(at)["ContentLength"]) if at.key else None
    except FileNotFoundError:
        return None


def is_folder(place: str) -> bool:
    """Whether the place is a bucket, or any object's key starts with it and a slash."""
    at = locate(place)
    list_first = at.client.list_objects_v2
    try:
        found = retried(at.place, lambda: list_first(Bucket=at.bucket, Prefix=at.prefix, MaxKeys=1))
    except FileNotFoundError:
        return False
    return not at.key or bool(found.get("Contents"))


def list_infos(place: str) -> list[Any]:
    """Arrow's ``FileInfo`` of everything under a folder; FileNotFoundError if it does not exist."""
    system, path = filesystem(place)
    selector = arrow_fs.FileSelector(path, recursive=True)
    return retried(
        place,
        lambda: cast("list[Any]", system.get_file_info(selector)),
        s3_retry.LIST_ATTEMPTS,
    )


def read(place: str, offset: int = 0, length: int | None = None) -> bytes:
    """At most ``length`` bytes (None: all) of an object from ``offset``; fewer where it ends."""
    return b"" if length == 0 else s3_objects.get(locate(place), offset, length)[0]


def write(place: str, content: bytes) -> None:
    """Writes an object; raises OSError if it cannot be written or differs afterwards."""
    if not s3_objects.put(locate(place), content):
        raise OSError(f"{place} was corrupted while being written: rerun the command")


def publish(local_file: Path, place: str) -> None:
    """Uploads a file and verifies the uploaded copy.

    Raises OSError if the copy differs from the file; the copy is then deleted.
    """
    at = locate(place)
    if local_file.stat().st_size > MULTIPART_BYTES:
        arrived = s3_objects.put_parts(at, local_file)
    else:
        arrived = s3_objects.put(at, local_file.read_bytes())
    if not arrived:
        s3_objects.delete(at)
        raise OSError(f"{place} was corrupted during upload and deleted: rerun the command")


def delete(place: str) -> None:
    """Deletes an object if it exists.

    Not with Arrow: it then writes an empty object to mark the folder, which some servers refuse.
    """
    s3_objects.delete(locate(place))


def write_if_unchanged(place: str, content: bytes, expected: bytes | None) -> None:
    """Writes if the object is still ``expected`` (None: absent), else raises ConflictError.

    If the response to a write is lost, the object is read to see whether the write succeeded. If
    the store supports preconditions, exactly one of several concurrent writers succeeds. If it
    ignores them, the last writer does, provided that every write arrives within ``SETTLE_S`` of
    the read before it.
    """
    at = locate(place)
    conditional = _supports_preconditions(at)
    if _write_if_unchanged(at, content, expected, conditional=conditional) and not conditional:
        time.sleep(SETTLE_S)
        if s3_objects.get_if_there(at)[0] != content:
            raise _conflict(at)


def sweep_uploads(place: str, older_than_s: float) -> int:
    """Aborts unfinished uploads that killed processes left under a folder; returns how many."""
    at = locate(place)
    list_all = at.client.list_multipart_uploads
    found = retried(at.place, lambda: list_all(Bucket=at.bucket, Prefix=at.prefix))
    before = datetime.now(UTC) - timedelta(seconds=older_than_s)
    old = [upload for upload in found.get("Uploads", []) if upload["Initiated"] < before]
    for upload in old:
        names = {"Bucket": at.bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
        s3_objects.abort(at, names)
    return len(old)


def _write_if_unchanged(
    at: Location, content: bytes, expected: bytes | None, *, conditional: bool
) -> bool:
    """Whether a write was sent."""
    sent = False

    def read_and_write() -> None:
        nonlocal sent
        current, etag = s3_objects.get_if_there(at)
        if current == content:
            return
        if current != expected:
            raise _conflict(at)
        condition = {"IfNoneMatch": "*"} if current is None else {"IfMatch": etag}
        sent = True
        _put_or_try_again(at, content, condition if conditional else {})

    attempts = s3_retry.ATTEMPTS
    retry_after_read = retry_if_exception_type(TryAgain)
    try:
        Retrying(retry=retry_after_read, stop=stop_after_attempt(attempts), wait=s3_retry.pause_s)(
            read_and_write
        )
    except RetryError:
        raise OSError(
            f"{at.place} could not be written in {attempts} attempts: rerun the command"
        ) from None
    return sent


def _put_or_try_again(at: Location, content: bytes, condition: dict[str, str]) -> None:
    try:
        s3_objects.put_once(at, content, **condition)
    except s3_retry.FAILURES as error:
        # Changed by others, or by our own write whose response was lost: read it again.
        if _is_precondition_failure(error) or s3_retry.is_transient(error):
            raise TryAgain from None
        raise s3_retry.named(at.place, error) from None


def _is_precondition_failure(error: Exception) -> bool:
    """Whether a write's precondition failed; 404: the object it should match is gone."""
    status, code = s3_retry.status_of(error)
    return status == 412 or (status == 404 and code != "NoSuchBucket")


def _supports_preconditions(at: Location) -> bool:
    """Whether the store refuses a write whose precondition fails; probed once per process."""
    bucket = at.endpoint, at.bucket
    if bucket not in _refuses:
        # Next to the object, where we may write; hidden in case we die before deleting it.
        folder, slash, name = at.key.rpartition("/")
        probe = replace(at, key=f"{folder}{slash}.{name}.{uuid.uuid4().hex[:12]}.part")
        _refuses[bucket] = retried(at.place, lambda: _is_refused(probe))
        s3_objects.delete(probe)
    return _refuses[bucket]


def _is_refused(probe: Location) -> bool:
    """Tries both preconditions: a store may support only one of them."""
    if not _is_put_refused(probe, IfMatch=_NO_ETAG):
        return False
    s3_objects.put_once(probe, b"")
    return _is_put_refused(probe, IfNoneMatch="*")


def _is_put_refused(probe: Location, **condition: str) -> bool:
    try:
        s3_objects.put_once(probe, b"", **condition)
    except ClientError as error:
        if _is_precondition_failure(error):
            return True
        if s3_retry.status_of(error)[0] != 501:
            raise
    return False


def _conflict(at: Location) -> ConflictError:
    return ConflictError(f"another process changed {at.place}: rerun the command")
