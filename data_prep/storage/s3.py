"""Places on S3: objects are read, written, listed, deleted, and written under a condition.

boto3 does all but two things: objects are read over presigned addresses (see ``s3_objects``), and
Arrow lists, in a fifteenth of boto3's processor time. Retries: see ``s3_retry``.
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
"""Larger files are uploaded in parts."""
SETTLE_S = 2.0
"""At a store that ignores conditions: what others sent who had looked before us has arrived by
then."""
_NO_ETAG = '"00000000000000000000000000000000"'
_refuses: dict[tuple[str, str], bool] = {}
"""Endpoint and bucket -> whether a write is refused whose condition is not met."""


class ConflictError(OSError):
    """What lies at a place is no longer what its writer had seen there."""


def filesystem(place: str) -> tuple[Any, str]:
    """``pyarrow.fs.S3FileSystem`` of a place, and the path on it.

    For libraries that want one. Its reads do not notice an answer that is shorter than the object.
    """
    at = locate(place)
    return at.arrow, f"{at.bucket}/{at.key}".rstrip("/")


def size_of(place: str) -> int | None:
    """Bytes of an object; None where none lies."""
    at = locate(place)
    try:
        return int(s3_objects.head(at)["ContentLength"]) if at.key else None
    except FileNotFoundError:
        return None


def is_folder(place: str) -> bool:
    """Whether any object lies below, or the place is a bucket."""
    at = locate(place)
    list_first = at.client.list_objects_v2
    try:
        found = retried(at.place, lambda: list_first(Bucket=at.bucket, Prefix=at.prefix, MaxKeys=1))
    except FileNotFoundError:
        return False
    return not at.key or bool(found.get("Contents"))


def list_infos(place: str) -> list[Any]:
    """Arrow's ``FileInfo`` of all below a folder. Raises FileNotFoundError where there is none."""
    system, path = filesystem(place)
    selector = arrow_fs.FileSelector(path, recursive=True)
    return retried(
        place,
        lambda: cast("list[Any]", system.get_file_info(selector)),
        s3_retry.LIST_ATTEMPTS,
    )


def read(place: str, offset: int = 0, length: int | None = None) -> bytes:
    """The object from ``offset`` on, or ``length`` bytes of it, or as many of these as it has."""
    return b"" if length == 0 else s3_objects.get(locate(place), offset, length)[0]


def write(place: str, content: bytes) -> None:
    """Writes an object whole, or raises OSError."""
    if not s3_objects.put(locate(place), content):
        raise OSError(f"{place} differs from what was written there; run again")


def publish(local_file: Path, place: str) -> None:
    """Uploads a file, and compares what arrived.

    Raises OSError where it differs from what was sent; it is removed then.
    """
    at = locate(place)
    if local_file.stat().st_size > MULTIPART_BYTES:
        arrived = s3_objects.put_parts(at, local_file)
    else:
        arrived = s3_objects.put(at, local_file.read_bytes())
    if not arrived:
        s3_objects.delete(at)
        raise OSError(f"{place} differs from what was sent, and was removed; run again")


def delete(place: str) -> None:
    """Deletes an object; nothing happens where none lies.

    Not by Arrow, which puts an empty object in the place of the folder, as some servers refuse.
    """
    s3_objects.delete(locate(place))


def write_if_unchanged(place: str, content: bytes, expected: bytes | None) -> None:
    """Writes where ``expected`` (None: nothing) still lies, else raises ConflictError.

    Where the answer to a write is lost, a look tells whether it succeeded. Of several who write at
    once exactly one succeeds, if the store knows conditions. If it ignores them, the last one does,
    provided that nobody's write arrives later than ``SETTLE_S`` after the look before it.
    """
    at = locate(place)
    conditional = _knows_conditions(at)
    if _write_if_unchanged(at, content, expected, conditional=conditional) and not conditional:
        time.sleep(SETTLE_S)
        if s3_objects.get_if_there(at)[0] != content:
            raise _conflict(at)


def sweep_uploads(place: str, older_than_s: float) -> int:
    """Ends unfinished uploads below a folder, such as killed processes leave; says how many."""
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
    """Whether anything was sent."""
    sent = False

    def look_and_write() -> None:
        nonlocal sent
        standing, etag = s3_objects.get_if_there(at)
        if standing == content:
            return
        if standing != expected:
            raise _conflict(at)
        condition = {"IfNoneMatch": "*"} if standing is None else {"IfMatch": etag}
        sent = True
        _put_or_look_again(at, content, condition if conditional else {})

    attempts = s3_retry.ATTEMPTS
    look_again = retry_if_exception_type(TryAgain)
    try:
        Retrying(retry=look_again, stop=stop_after_attempt(attempts), wait=s3_retry.pause_s)(
            look_and_write
        )
    except RetryError:
        raise OSError(f"{at.place} could not be written in {attempts} tries; run again") from None
    return sent


def _put_or_look_again(at: Location, content: bytes, condition: dict[str, str]) -> None:
    try:
        s3_objects.put_once(at, content, **condition)
    except s3_retry.FAILURES as error:
        # Changed by others, or by our own write, whose answer was lost: look again.
        if _is_not_met(error) or s3_retry.may_pass(error):
            raise TryAgain from None
        raise s3_retry.named(at.place, error) from None


def _is_not_met(error: Exception) -> bool:
    """Whether a write was refused for its condition; 404: what should match is gone."""
    status, code = s3_retry.status_of(error)
    return status == 412 or (status == 404 and code != "NoSuchBucket")


def _knows_conditions(at: Location) -> bool:
    """Whether the store refuses a write whose condition is not met; asked once per process."""
    bucket = at.endpoint, at.bucket
    if bucket not in _refuses:
        # Beside the object, where we may write; hidden, should it outlive us.
        folder, slash, name = at.key.rpartition("/")
        probe = replace(at, key=f"{folder}{slash}.{name}.{uuid.uuid4().hex[:12]}.part")
        _refuses[bucket] = retried(at.place, lambda: _is_refused(probe))
        s3_objects.delete(probe)
    return _refuses[bucket]


def _is_refused(probe: Location) -> bool:
    """Tries both conditions, of which a store may know one and not the other."""
    if not _is_put_refused(probe, IfMatch=_NO_ETAG):
        return False
    s3_objects.put_once(probe, b"")
    return _is_put_refused(probe, IfNoneMatch="*")


def _is_put_refused(probe: Location, **condition: str) -> bool:
    try:
        s3_objects.put_once(probe, b"", **condition)
    except ClientError as error:
        if _is_not_met(error):
            return True
        if s3_retry.status_of(error)[0] != 501:
            raise
    return False


def _conflict(at: Location) -> ConflictError:
    return ConflictError(f"{at.place} was changed by somebody else meanwhile; run again")
