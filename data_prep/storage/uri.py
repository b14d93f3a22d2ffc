"""Places as strings: paths, ``file://`` and ``s3://`` URIs. This module accesses no storage.

``s3://bucket/key?endpoint_override=host:port&scheme=http&region=...`` selects a custom server;
``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL`` does so for every URI that has no
``endpoint_override``. Credentials come from the environment or AWS's usual chain, never from a URI.
"""

import re
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def is_local(place: str) -> bool:
    """Whether a place is on the local file system."""
    return _scheme(place) in ("", "file")


def local_path(place: str) -> Path:
    """The path of a local place.

    Raises:
        ValueError: the place is not local, or its name is not UTF-8.
    """
    if not is_utf_8(place):
        raise ValueError(f"the name '{printable(place)}' is not UTF-8: rename it")
    if not is_local(place):
        raise ValueError(f"{_scheme(place)}:// is not on the local file system: use a path")
    if _scheme(place) == "":
        return Path(place)
    parts = urlsplit(place)
    if parts.netloc not in ("", "localhost"):
        raise ValueError(f"{place} has the host {parts.netloc}: write file:///path")
    return Path(unquote(parts.path))


def absolute(place: str) -> str:
    """The place, independent of the working directory."""
    return str(local_path(place).absolute()) if is_local(place) else place


def join(place: str, *names: str) -> str:
    """``place`` with names appended to its path; a URI keeps its query."""
    if _scheme(place) == "":
        return str(Path(place, *names))
    head, mark, query = place.partition("?")
    tail = "/".join(quote(name) for name in names)
    return f"{head.rstrip('/')}/{tail}{mark}{query}"


def name_of(place: str) -> str:
    """The last component of a place."""
    if _scheme(place) == "":
        return Path(place).name
    return unquote(place.partition("?")[0].rstrip("/").rpartition("/")[2])


def suffix_of(place: str) -> str:
    """The suffix of the last component of a place, such as ``.png``, in lower case."""
    return PurePosixPath(name_of(place)).suffix.lower()


def parent_of(place: str) -> str:
    """The folder that contains a place; a URI keeps its query. A bucket is its own parent."""
    if _scheme(place) == "":
        return str(Path(place).parent)
    head, mark, query = place.partition("?")
    scheme, _, rest = head.partition("://")
    host, _, path = rest.partition("/")
    folder = path.rstrip("/").rpartition("/")[0]
    inside = f"/{folder}" if folder or not host else ""
    return f"{scheme}://{host}{inside}{mark}{query}"


def is_bucket(place: str) -> bool:
    """Whether a place is a whole bucket."""
    path = place.partition("?")[0].partition("://")[2].partition("/")[2]
    return not is_local(place) and not path.rstrip("/")


def require_s3(place: str) -> str:
    """The place, which must be an ``s3://`` URI.

    Raises:
        ValueError: the place has another scheme.
    """
    if _scheme(place) != "s3":
        raise ValueError(f"unknown scheme {_scheme(place)}://; use a path, file:// or s3://")
    return place


def _scheme(place: str) -> str:
    match = _SCHEME.match(place)
    return match[1].lower() if match else ""


def is_utf_8(name: str) -> bool:
    """Whether a local name, as Python represents it, consists of valid UTF-8."""
    return name.isascii() or not any("\udc80" <= character <= "\udcff" for character in name)


def printable(name: str) -> str:
    """A local name for people, with ``\\xf1`` for a byte that is not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
