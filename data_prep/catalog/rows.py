"""The catalog, and the reading of annotations that all formats share."""

import csv
import io
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from data_prep import storage
from data_prep.catalog import splits as split_rules
from data_prep.catalog.splits import SPLITS, Leak

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
"""Files that count as clips; others are ignored."""

VIDEO_ID = re.compile(r"[A-Za-z0-9_-]+")
"""Valid ids of videos."""

_SECONDS = re.compile(r"\d{1,9}(\.0*)?")
_SHOWN_LEAKS = 5


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One catalog row: a clip, the address of its file, and the window that makes a sample."""

    key: str
    """Name of the sample, unique in the catalog; contains no ``.`` and no ``/``."""
    youtube_id: str
    """The video it was cut from, by which clips are grouped into splits and shards."""
    start_s: float
    """Start of the clip in its video (VGGSound) or of the event in the clip (AVE)."""
    label: str
    """Label in the annotations; never used in training."""
    split: str
    """One of ``train``, ``val``, ``test``."""
    uri: str
    """Path or URI of the file."""
    stamp: str = ""
    """Size and modification time as listed; empty: the file is missing."""
    event_start_s: float = 0.0
    """Start, in the file, of the window from which pictures and sound are taken."""
    event_end_s: float | None = None
    """End of that window; None: the end of the file."""

    @property
    def size(self) -> int:
        """Bytes of the file as listed; 0 if it is missing."""
        return int(self.stamp.partition(":")[0] or 0)


@dataclass(frozen=True, kw_only=True)
class ExcludedClip:
    """A row of the annotations that is left out on purpose."""

    clip: Clip
    reason: Literal["leak", "excluded"]
    """``leak``: a more held-out split has its video; ``excluded``: it is on an exclusion list."""
    detail: str
    """In words: the split that keeps the video, or the reason in the list."""


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Clips to build, clips left out, and the videos that are in several splits."""

    clips: tuple[Clip, ...]
    """To build, in the order of the annotations; keys are unique, across ``excluded`` too."""
    leaks: tuple[Leak, ...]
    """Videos in several splits, whether or not their rows were left out."""
    excluded: tuple[ExcludedClip, ...] = ()
    """Not to build; they count as rejected."""


def safe_key(text: str) -> str:
    """``text`` as a shard member's name: all but letters, digits, ``_-`` percent-encoded."""
    return quote(text, safe="").replace(".", "%2E").replace("~", "%7E")


def finish(clips: Sequence[Clip], source: str, *, drop_leaks: bool) -> Catalog:
    """The catalog of all rows of a source; leaks are logged and, if ``drop_leaks``, left out.

    Raises:
        ValueError: there are no rows.
    """
    if not clips:
        raise ValueError(f"{source} contains no rows: nothing to build")
    leaks = split_rules.find_leaks(clips)
    leaking = split_rules.leaking_rows(clips, leaks) if drop_leaks else {}
    excluded = tuple(
        ExcludedClip(
            clip=clips[number],
            reason="leak",
            detail=f"{clips[number].split} clip of a video that {kept_split} keeps",
        )
        for number, kept_split in leaking.items()
    )
    if leaks:
        log.warning(
            "%s: %d videos are in several splits (%s%s); %d rows left out",
            source,
            len(leaks),
            ", ".join(leak.youtube_id for leak in leaks[:_SHOWN_LEAKS]),
            ", ..." if len(leaks) > _SHOWN_LEAKS else "",
            len(excluded),
        )
    kept = tuple(clip for number, clip in enumerate(clips) if number not in leaking)
    return Catalog(clips=kept, leaks=leaks, excluded=excluded)


def read_text(place: str) -> str:
    """The content of an annotations file.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: it is not UTF-8 text.
    """
    try:
        return storage.read_bytes(place).decode("utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"annotations {place} do not exist: check the path") from None
    except UnicodeDecodeError:
        raise ValueError(f"{place} is not UTF-8 text: give the annotations file") from None


def csv_rows(place: str, *, comments: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each row that is not blank.

    Lines that start with ``comments``, if given, count as blank.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it is not UTF-8 text or not CSV.
    """
    lines: Iterable[str] = io.StringIO(read_text(place), newline="")
    if comments is not None:
        lines = ("\n" if line.startswith(comments) else line for line in lines)
    reader = csv.reader(lines, strict=True)
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if fields not in ([], [""]):
                yield reader.line_num, fields
    except csv.Error as error:
        raise ValueError(f"{place}:{reader.line_num}: {error}") from None


def whole_seconds(text: str, where: str) -> int:
    """A time as written in annotations, ``34`` or ``34.0``.

    Raises:
        ValueError: it is not a whole number; ``where`` names the row.
    """
    if not _SECONDS.fullmatch(text):
        raise ValueError(f"{where}: {text!r} is not a whole number of seconds")
    return int(float(text))


def files_by_stem(clips_place: str) -> dict[str, storage.StoredFile]:
    """Videos under a place by their names without suffix; ValueError if two have the same."""
    files: dict[str, storage.StoredFile] = {}
    for file in storage.list_files(clips_place):
        stem, dot, suffix = file.name.rpartition("/")[2].rpartition(".")
        if f"{dot}{suffix.lower()}" not in VIDEO_SUFFIXES:
            continue
        if stem in files:
            raise ValueError(
                f"{clips_place} contains {stem} twice: {files[stem].name}, {file.name}"
            )
        files[stem] = file
    return files


def splits_in_name(place: str) -> list[str]:
    """Splits that a file's name contains, such as ``trainSet.txt``."""
    name = storage.name_of(place).lower()
    return [split for split in SPLITS if split in name]
