"""Calls on single objects, with retries and integrity checks.

Objects are read with one GET of a presigned URL. That takes half the CPU time of boto3's
``get_object`` and half the calls of Arrow, which asks for the size first and pads a truncated
response with uninitialized memory.

A checksum that a store merely echoes (rclone's SHA-256) proves nothing. Uploads are verified by
their ETag, which at most stores is the MD5 of the content or of the parts' MD5s. Where it is
neither (as on AWS with KMS keys), the object is read back.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
# (botocore ships no types)

import base64
import contextlib
import functools
import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

from botocore import exceptions as boto
from botocore.awsrequest import AWSRequest

from data_prep.storage.s3_client import Location
from data_prep.storage.s3_retry import retried

PART_BYTES = 16 << 20
"""Part size of multipart uploads; larger for files that would exceed S3's limit of 10,000 parts."""
_MAX_PARTS = 10_000
_UPLOADS_AT_ONCE = 4
_PRESIGNED_FOR_S = 900
_CODE = re.compile(rb"<Code>(\w+)</Code>")
_SPAN = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class _BeyondEndError(Exception):
    """The range starts at or after the end of the object, as any range of an empty object does."""


def get(at: Location, offset: int = 0, length: int | None = None) -> tuple[bytes, str]:
    """Content and ETag of an object, or of a range of it, which may extend beyond its end."""
    try:
        return retried(at.place, lambda: _get_once(at, offset, length))
    except _BeyondEndError:
        return b"", str(head(at)["ETag"])


def get_if_there(at: Location) -> tuple[bytes | None, str]:
    """Content and ETag of an object; None and an empty string if it does not exist."""
    try:
        return get(at)
    except FileNotFoundError:
        return None, ""


def head(at: Location) -> dict[str, Any]:
    """An object's metadata: ``ContentLength``, ``ETag`` and more."""
    call = at.client.head_object
    return retried(at.place, lambda: _complete(call(**at.names), "ContentLength", "ETag"))


def put_once(at: Location, content: bytes, **condition: str) -> None:
    """Writes an object in a single attempt."""
    at.client.put_object(**at.names, Body=content, ContentMD5=_content_md5(content), **condition)


def put(at: Location, content: bytes) -> bool:
    """Writes an object; returns whether the stored object matches ``content``."""
    retried(at.place, lambda: put_once(at, content))
    return _etag(at) == _md5(content).hex() or get_if_there(at)[0] == content


def put_parts(at: Location, file: Path) -> bool:
    """Uploads a file in parts; returns whether the stored object matches the file."""
    size = file.stat().st_size
    part_bytes = max(PART_BYTES, -(-size // _MAX_PARTS))
    offsets = range(0, size, part_bytes)
    create = at.client.create_multipart_upload
    created = retried(at.place, lambda: _complete(create(**at.names), "UploadId"))
    upload = {**at.names, "UploadId": str(created["UploadId"])}
    send = functools.partial(_send_part, at, upload, file, part_bytes)
    try:
        with ThreadPoolExecutor(_UPLOADS_AT_ONCE) as pool:
            sent = list(pool.map(send, offsets))
        parts = [{"PartNumber": n, "ETag": etag} for n, (_, etag) in enumerate(sent, 1)]
        complete = functools.partial(at.client.complete_multipart_upload, **upload)
        # Not found: an earlier attempt completed it, but its response was lost. The ETag decides.
        with contextlib.suppress(FileNotFoundError):
            retried(at.place, lambda: complete(MultipartUpload={"Parts": parts}))
    except BaseException:
        with contextlib.suppress(OSError):
            abort(at, upload)
        raise
    of_parts = _md5(b"".join(md5 for md5, _ in sent)).hex()
    return _etag(at) in (f"{of_parts}-{len(sent)}", _md5_of(file)) or _equal(at, file, offsets)


def abort(at: Location, upload: dict[str, str]) -> None:
    """Aborts an unfinished upload, which frees its parts."""
    with contextlib.suppress(FileNotFoundError):
        retried(at.place, lambda: at.client.abort_multipart_upload(**upload))


def delete(at: Location) -> None:
    """Deletes an object if it exists."""
    with contextlib.suppress(FileNotFoundError):
        retried(at.place, lambda: at.client.delete_object(**at.names))


def _get_once(at: Location, offset: int, length: int | None) -> tuple[bytes, str]:
    address = at.client.generate_presigned_url(
        "get_object", Params=at.names, ExpiresIn=_PRESIGNED_FOR_S
    )
    # The response to a range request states the object's size, which reveals truncation.
    ranged = {"Range": f"bytes={offset}-{'' if length is None else offset + length - 1}"}
    answer = at.session.send(AWSRequest("GET", address, headers=ranged).prepare())
    content = cast(bytes, answer.content)
    if answer.status_code == 416:
        raise _BeyondEndError
    if answer.status_code not in (200, 206):
        code = _CODE.search(content)
        refusal = {
            "Error": {"Code": code[1].decode() if code else ""},
            "ResponseMetadata": {"HTTPStatusCode": answer.status_code},
        }
        raise boto.ClientError(refusal, "GetObject")
    span = _SPAN.fullmatch(answer.headers.get("Content-Range", ""))
    size = int(span[3]) if span else -1
    due = size - offset if length is None else min(length, size - offset)
    if not span or int(span[1]) != offset or len(content) != due:
        raise boto.IncompleteReadError(actual_bytes=len(content), expected_bytes=due)
    return content, answer.headers.get("ETag", "")


def _send_part(
    at: Location, upload: dict[str, str], file: Path, part_bytes: int, offset: int
) -> tuple[bytes, str]:
    """MD5 and ETag of a part."""
    part = _part(file, offset, part_bytes)
    send = functools.partial(
        at.client.upload_part,
        **upload,
        PartNumber=1 + offset // part_bytes,
        ContentMD5=_content_md5(part),
        Body=part,
    )
    return _md5(part), str(retried(at.place, lambda: _complete(send(), "ETag"))["ETag"])


def _complete(answer: dict[str, Any], *fields: str) -> dict[str, Any]:
    """The response, which must have these fields: a truncated one lacks some."""
    if not set(fields) <= set(answer):
        raise boto.IncompleteReadError(actual_bytes=0, expected_bytes=1)
    return answer


def _etag(at: Location) -> str:
    return str(head(at)["ETag"]).strip('"')


def _equal(at: Location, file: Path, offsets: range) -> bool:
    """Whether the object equals the file; it is read back part by part."""
    return int(head(at)["ContentLength"]) == file.stat().st_size and all(
        _part(file, offset, offsets.step) == get(at, offset, offsets.step)[0] for offset in offsets
    )


def _part(file: Path, offset: int, length: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(offset)
        return opened.read(length)


def _md5_of(file: Path) -> str:
    with file.open("rb") as opened:
        md5 = functools.partial(hashlib.md5, usedforsecurity=False)
        return hashlib.file_digest(opened, md5).hexdigest()


def _md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def _content_md5(content: bytes) -> str:
    return base64.b64encode(_md5(content)).decode()
