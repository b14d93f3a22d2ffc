"""One API for paths, ``file://`` and ``s3://`` URIs, with atomic publication."""

from data_prep.storage.listing import StoredFile, filesystem, list_files
from data_prep.storage.permanent_errors import may_pass
from data_prep.storage.places import (
    ConflictError,
    delete,
    delete_folder,
    download_folder,
    exists,
    publish,
    read_bytes,
    read_range,
    size_of,
    sweep_parts,
    upload_folder,
    write_bytes,
    write_if_unchanged,
)
from data_prep.storage.uri import (
    absolute,
    is_bucket,
    is_local,
    join,
    local_path,
    name_of,
    parent_of,
    suffix_of,
)

__all__ = [
    "ConflictError",
    "StoredFile",
    "absolute",
    "delete",
    "delete_folder",
    "download_folder",
    "exists",
    "filesystem",
    "is_bucket",
    "is_local",
    "join",
    "list_files",
    "local_path",
    "may_pass",
    "name_of",
    "parent_of",
    "publish",
    "read_bytes",
    "read_range",
    "size_of",
    "suffix_of",
    "sweep_parts",
    "upload_folder",
    "write_bytes",
    "write_if_unchanged",
]
