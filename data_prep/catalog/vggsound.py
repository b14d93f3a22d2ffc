"""VGGSound (Chen et al. 2020): ``vggsound.csv`` and ``test.csv``, both without a header."""

import logging
import re
from collections.abc import Callable

from data_prep import storage
from data_prep.catalog.rows import (
    VIDEO_ID,
    Catalog,
    Clip,
    csv_rows,
    files_by_stem,
    finish,
    splits_in_name,
    whole_seconds,
)
from data_prep.catalog.splits import SPLITS

log = logging.getLogger(__name__)

_BY_MILLISECONDS = re.compile(r"(.+)_(\d+)_(\d+)")


def read_vggsound(annotations: str, clips_place: str, *, drop_leaks: bool = True) -> Catalog:
    """Catalog of rows ``youtube id,start seconds,label,split``, or ``file,label`` (``test.csv``).

    The second form has no split: it is the split in the annotations' file name, else ``test``.
    Clips are named ``<id>_<start:06d>``, ``<id>_<start>`` or ``<id>_<start ms>_<end ms>``, with the
    suffix of a video. A header in the first line is skipped.

    Raises:
        FileNotFoundError: annotations or folder of clips are missing.
        ValueError: a row is malformed; the message has file and line.
    """
    find = _finder(clips_place)
    named = splits_in_name(annotations) or ["test"]
    place_of_key: dict[str, int] = {}
    clips: list[Clip] = []
    lines: list[int] = []
    for line, row in csv_rows(annotations):
        where = f"{annotations}:{line}"
        if line == 1 and _is_header(row):
            log.warning("%s: skipped as a header", where)
            continue
        clip = _clip(row, where, named, find)
        before = place_of_key.setdefault(clip.key, len(clips))
        if before == len(clips):
            clips.append(clip)
            lines.append(line)
        elif clips[before] == clip:
            log.warning("%s: repeats line %d and is ignored", where, lines[before])
        else:
            raise ValueError(
                f"{where}: {clip.key} is already on line {lines[before]}; keep one row"
            )
    return finish(clips, annotations, drop_leaks=drop_leaks)


def _is_header(row: list[str]) -> bool:
    """Whether a row has words where a time and a split, or a file's time, belong."""
    if len(row) == 4:
        return not row[1][:1].isdigit() and row[3] not in SPLITS
    return len(row) == 2 and not any(character.isdigit() for character in row[0])


def _clip(
    row: list[str],
    where: str,
    splits_of_file: list[str],
    find: Callable[[str, int], tuple[str, str]],
) -> Clip:
    if len(row) == 4:
        youtube_id, start_text, label, split = row
    elif len(row) == 2:
        stem = row[0].rpartition(".")[0] or row[0]
        youtube_id, _, start_text = stem.rpartition("_")
        label, split = row[1], " or ".join(splits_of_file)
    else:
        raise ValueError(
            f"{where}: {len(row)} fields; expected 'youtube id,start seconds,label,split' "
            "or 'file,label' (a label with commas in quotes)"
        )
    start = whole_seconds(start_text, where)
    if not VIDEO_ID.fullmatch(youtube_id):
        raise ValueError(f"{where}: {youtube_id!r} is not a YouTube id")
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


def _finder(clips_place: str) -> Callable[[str, int], tuple[str, str]]:
    """(id, start in seconds) -> (uri, stamp), for both naming schemes."""
    files = files_by_stem(clips_place)
    by_milliseconds: dict[tuple[str, int], storage.StoredFile] = {}
    for stem, file in files.items():
        parts = _BY_MILLISECONDS.fullmatch(stem)
        if parts:
            by_milliseconds.setdefault((parts[1], int(parts[2])), file)

    def find(youtube_id: str, start: int) -> tuple[str, str]:
        stem = f"{youtube_id}_{start:06d}"
        file = (
            files.get(stem)
            or files.get(f"{youtube_id}_{start}")
            or by_milliseconds.get((youtube_id, start * 1000))
        )
        return (file.uri, file.stamp) if file else (storage.join(clips_place, f"{stem}.mp4"), "")

    return find
