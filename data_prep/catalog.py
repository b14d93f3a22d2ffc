"""Annotations and a place of clips -> the clips to read.

Sources: VGGSound (Chen et al. 2020), ``vggsound.csv`` without a header, rows
``youtube id, start seconds, label, split``, and its ``test.csv``, rows ``file, label``;
AVE (Tian et al. 2018), rows ``Category&VideoID&Quality&StartTime&EndTime`` with or without a
header.

The place of clips is listed once. A clip that is not there stays in the catalog, with the address
at which it was expected and an empty stamp, so that it is counted and named later.
"""

import csv
import io
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import quote

from data_prep import splits as split_rules
from data_prep import storage
from data_prep.splits import SPLITS, Leak

log = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
"""Files that a folder of clips is made of; others are passed over."""

_ID = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One catalog row: a clip, where it lies, and the window of it that makes a sample."""

    key: str
    """Name of the sample, unique in the catalog; holds no ``.`` and no ``/``."""
    youtube_id: str
    """The video it was cut from: what splits and shards are grouped by."""
    start_s: float
    """Start of the clip in its video (VGGSound) or of the event in the clip (AVE)."""
    label: str
    """What the annotations call it; never given to training."""
    split: str
    """One of ``train``, ``val``, ``test``."""
    uri: str
    """Path or URI of the file."""
    stamp: str = ""
    """Size and modification time as listed; empty: the file was not there."""
    event_start_s: float = 0.0
    """Start, in the file, of the window from which pictures and sound are taken."""
    event_end_s: float | None = None
    """End of that window; None: the end of the file."""


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Clips to build from, and the videos that were found in several splits."""

    clips: tuple[Clip, ...]
    """In the order of the annotations, keys unique."""
    leaks: tuple[Leak, ...]
    """Videos in several splits, whether their rows were dropped or not."""
    dropped: tuple[str, ...] = ()
    """Keys that were left out because a more held-out split has their video."""


def safe_key(text: str) -> str:
    """``text`` as a shard member's name: all but letters, digits, ``_-`` is percent-encoded."""
    return quote(text, safe="").replace(".", "%2E").replace("~", "%7E")


def read_vggsound(annotations: str, clips_place: str, *, drop_leaks: bool = True) -> Catalog:
    """Catalog of a VGGSound csv, in its four-column or its two-column (``test.csv``) form.

    The two-column form names no split: it is the one that the file's name says, ``test`` unless
    that holds "train" or "val". Clips are named ``<id>_<start:06d>.mp4`` or ``<id>_<ms>_<ms>.mp4``.

    Raises ValueError with file and line for a malformed row.
    """
    find = _vggsound_finder(clips_place)
    split_of_file = _split_of_name(annotations, "test")
    seen: dict[str, tuple[list[str], int]] = {}
    clips: list[Clip] = []
    for line, row in _csv_rows(annotations):
        where = f"{annotations}:{line}"
        clip = _vggsound_clip(row, where, split_of_file, find)
        before = seen.setdefault(clip.key, (row, line))
        if before[1] == line:
            clips.append(clip)
        elif before[0] == row:
            log.warning("%s: repeats line %d and is passed over", where, before[1])
        else:
            raise ValueError(
                f"{where}: {clip.key} stands already on line {before[1]}; keep one row"
            )
    return _catalog(clips, annotations, drop_leaks)


def read_ave(
    annotations: str, splits: Sequence[str], clips_place: str, *, drop_leaks: bool = True
) -> Catalog:
    """Catalog of AVE: one sample per event, so one video may have several.

    ``splits`` are the official split files (``trainSet.txt``, ``valSet.txt``, ``testSet.txt``; the
    name says which). Without any, every event is ``train``; with some, an event that none names is
    left out, and an event that the annotations lack is a ValueError.
    """
    split_of_event = _ave_splits(splits)
    files = _clip_files(clips_place)
    times_seen: Counter[tuple[str, int, int]] = Counter()
    clips: list[Clip] = []
    known: set[tuple[str, str, int, int]] = set()
    for _, label, youtube_id, start, end in _ave_rows(annotations):
        event = (label, youtube_id, start, end)
        known.add(event)
        window = (youtube_id, start, end)
        times_seen[window] += 1
        if splits and event not in split_of_event:
            continue
        name = f"{youtube_id}.mp4"
        file = files.get(name)
        # Two categories may share one window: the first keeps the plain key.
        nth = times_seen[window]
        clips.append(
            Clip(
                key=f"{youtube_id}_{start:06d}_{end:06d}" + (f"-{nth}" if nth > 1 else ""),
                youtube_id=youtube_id,
                start_s=float(start),
                label=label,
                split=split_of_event.get(event, ("train", ""))[0],
                uri=file.uri if file else storage.join(clips_place, name),
                stamp=file.stamp if file else "",
                event_start_s=float(start),
                event_end_s=float(end),
            )
        )
    for event, (_, where) in split_of_event.items():
        if event not in known:
            raise ValueError(f"{where}: {event[1]} ({event[0]}) does not stand in {annotations}")
    return _catalog(clips, annotations, drop_leaks)


def read_folder(clips_place: str) -> Catalog:
    """Catalog of every video file under a place.

    The label is the name of the file's folder (empty at the top), the split the first folder's
    where that is called train, val or test, else ``train``. The video's id is the file's stem, less
    an ending ``_<start:06d>``, so that clips of one video stay together.
    """
    clips: list[Clip] = []
    for file in storage.list_files(clips_place):
        path = PurePosixPath(file.name)
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            continue
        named = re.fullmatch(r"(.+)_(\d{6})", path.stem)
        folders = path.parts[:-1]
        clips.append(
            Clip(
                key=safe_key(str(path.with_suffix(""))),
                youtube_id=named[1] if named else path.stem,
                start_s=float(named[2]) if named else 0.0,
                label=folders[-1] if folders and folders[-1] not in SPLITS else "",
                split=folders[0] if folders and folders[0] in SPLITS else "train",
                uri=file.uri,
                stamp=file.stamp,
            )
        )
    if not clips:
        endings = ", ".join(VIDEO_SUFFIXES)
        raise ValueError(f"no clips under {clips_place}: no file ends in {endings}")
    twice = [key for key, n in Counter(clip.key for clip in clips).items() if n > 1]
    if twice:
        raise ValueError(
            f"{clips_place}: several files are called {twice[0]}.*; rename all but one"
        )
    return _catalog(clips, clips_place, drop_leaks=False)


def _catalog(clips: list[Clip], source: str, drop_leaks: bool) -> Catalog:
    if not clips:
        raise ValueError(f"{source} holds no rows: nothing to build")
    leaks = split_rules.find_leaks(clips)
    kept = split_rules.drop_leaks(clips, leaks) if drop_leaks else clips
    kept_keys = {clip.key for clip in kept}
    dropped = tuple(clip.key for clip in clips if clip.key not in kept_keys)
    if leaks:
        log.warning(
            "%s: %d videos stand in several splits (%s%s); %d rows dropped",
            source,
            len(leaks),
            ", ".join(leak.youtube_id for leak in leaks[:5]),
            ", ..." if len(leaks) > 5 else "",
            len(dropped),
        )
    return Catalog(clips=tuple(kept), leaks=leaks, dropped=dropped)


def _text(place: str) -> str:
    try:
        return storage.read_bytes(place).decode("utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"annotations {place} are not there: check the path") from None
    except UnicodeDecodeError:
        raise ValueError(f"{place} is no text in UTF-8: give the annotations file") from None


def _csv_rows(place: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each row that is not blank."""
    reader = csv.reader(io.StringIO(_text(place), newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, [field.strip() for field in row]
    except csv.Error as error:
        raise ValueError(f"{place}:{reader.line_num}: {error}") from None


def _vggsound_clip(
    row: list[str],
    where: str,
    split_of_file: str,
    find: Callable[[str, int], tuple[str, str]],
) -> Clip:
    if len(row) == 4:
        youtube_id, start_text, label, split = row
    elif len(row) == 2:
        youtube_id, _, start_text = row[0].removesuffix(".mp4").rpartition("_")
        label, split = row[1], split_of_file
    else:
        raise ValueError(
            f"{where}: {len(row)} fields; expected 'youtube id,start seconds,label,split' "
            "or 'file,label' (a label with commas in quotes)"
        )
    start = _whole_seconds(start_text, where)
    if not _ID.fullmatch(youtube_id):
        raise ValueError(f"{where}: {youtube_id!r} is no YouTube id")
    if not label:
        raise ValueError(f"{where}: the label is empty")
    if split not in SPLITS:
        raise ValueError(f"{where}: split {split!r} is none of {', '.join(SPLITS)}")
    uri, stamp = find(youtube_id, start)
    return Clip(
        key=f"{youtube_id}_{start:06d}",
        youtube_id=youtube_id,
        start_s=float(start),
        label=label,
        split=split,
        uri=uri,
        stamp=stamp,
    )


def _whole_seconds(text: str, where: str) -> int:
    if not re.fullmatch(r"\d{1,9}(\.0*)?", text):
        raise ValueError(f"{where}: {text!r} is no whole number of seconds")
    return int(float(text))


def _vggsound_finder(clips_place: str) -> Callable[[str, int], tuple[str, str]]:
    """(id, start in seconds) -> (uri, stamp), under both naming schemes."""
    files = _clip_files(clips_place)
    by_milliseconds: dict[tuple[str, int], storage.StoredFile] = {}
    for name, file in files.items():
        parts = re.fullmatch(r"(.+)_(\d+)_(\d+)\.mp4", name)
        if parts:
            by_milliseconds.setdefault((parts[1], int(parts[2])), file)

    def find(youtube_id: str, start: int) -> tuple[str, str]:
        name = f"{youtube_id}_{start:06d}.mp4"
        file = files.get(name) or by_milliseconds.get((youtube_id, start * 1000))
        return (file.uri, file.stamp) if file else (storage.join(clips_place, name), "")

    return find


def _clip_files(clips_place: str) -> Mapping[str, storage.StoredFile]:
    """Video files under a place by their last name."""
    files: dict[str, storage.StoredFile] = {}
    for file in storage.list_files(clips_place):
        name = PurePosixPath(file.name).name
        if not name.endswith(".mp4"):
            continue
        if name in files:
            raise ValueError(f"{clips_place} holds {name} twice: {files[name].name}, {file.name}")
        files[name] = file
    return files


def _split_of_name(place: str, default: str) -> str:
    name = PurePosixPath(place).name.lower()
    return next((split for split in SPLITS if split in name), default)


def _ave_rows(place: str) -> Iterator[tuple[int, str, str, int, int]]:
    """Line number, category, video id, start and end (seconds in the clip) of each event."""
    for line, text in enumerate(_text(place).splitlines(), start=1):
        fields = [field.strip() for field in text.split("&")]
        is_header = line == 1 and fields[:2] == ["Category", "VideoID"]
        if not text.strip() or is_header:
            continue
        where = f"{place}:{line}"
        if len(fields) != 5:
            raise ValueError(
                f"{where}: {len(fields)} fields; "
                "expected Category&VideoID&Quality&StartTime&EndTime"
            )
        label, youtube_id, _, start, end = fields
        if not label or not _ID.fullmatch(youtube_id):
            raise ValueError(f"{where}: category {label!r} or video id {youtube_id!r} is malformed")
        yield line, label, youtube_id, _whole_seconds(start, where), _whole_seconds(end, where)


def _ave_splits(places: Sequence[str]) -> dict[tuple[str, str, int, int], tuple[str, str]]:
    """Event -> its split and where that is written."""
    split_of_event: dict[tuple[str, str, int, int], tuple[str, str]] = {}
    rows_of_split: defaultdict[str, list[str]] = defaultdict(list)
    for place in places:
        split = _split_of_name(place, "")
        if not split:
            raise ValueError(f"{place}: its name says none of {', '.join(SPLITS)}; rename it")
        if rows_of_split[split]:
            raise ValueError(f"{place}: {rows_of_split[split][0]} already gives split {split}")
        rows_of_split[split].append(place)
        for line, label, youtube_id, start, end in _ave_rows(place):
            where = f"{place}:{line}"
            before = split_of_event.setdefault((label, youtube_id, start, end), (split, where))
            if before[0] != split:
                raise ValueError(f"{where}: the same event is {before[0]} at {before[1]}")
    return split_of_event
