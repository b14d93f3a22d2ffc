"""Exclusion lists: clips that somebody, or ``aiaic duplicates``, wants left out of a build.

A list is a csv of ``name,reason``; the header and the reason may be absent, blank lines and lines
that begin with ``#`` are passed over. A name is a clip's key, its video's id (all of its clips), or
the last name of its file.
"""

import csv
import io
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

from data_prep import storage
from data_prep.catalog.rows import Catalog, Clip, ExcludedClip, csv_rows

log = logging.getLogger(__name__)

HEADER = ("name", "reason")
UNTOLD = "named by the exclusion list"
"""What is told of a name without a reason."""


def read_exclusions(place: str) -> dict[str, str]:
    """Name -> reason of a list; of a repeated name the first reason stays.

    Raises ValueError with file and line for a malformed row, FileNotFoundError for no such file.
    """
    reasons: dict[str, str] = {}
    for number, (line, row) in enumerate(csv_rows(place, comments="#")):
        name, *rest = row
        if number == 0 and tuple(field.lower() for field in row) in (HEADER, HEADER[:1]):
            continue
        if not name or len(rest) > 1:
            raise ValueError(
                f"{place}:{line}: {len(row)} fields, the first {name!r}; expected 'name' or "
                "'name,reason' (a reason with commas in quotes)"
            )
        reasons.setdefault(name, (rest[0] if rest else "") or UNTOLD)
    return reasons


def encode_exclusions(reasons: Iterable[tuple[str, str]]) -> bytes:
    """A list that ``read_exclusions`` reads; the same bytes for the same names and reasons."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(reasons)
    return text.getvalue().encode()


def exclude(catalog: Catalog, exclusions: Mapping[str, str]) -> Catalog:
    """The catalog with the clips that a list names moved from ``clips`` to ``excluded``.

    A name that is a clip's key means that clip alone, even where a video is called the same. Names
    that match nothing are only counted in the log: a list may serve several data sets. Clips that
    are left out already stay so for their own reason.

    Raises ValueError where no clip is left.
    """
    left_out = [excluded.clip for excluded in catalog.excluded]
    keys = {clip.key for clip in (*catalog.clips, *left_out)}
    matched: set[str] = set()
    reasons: dict[str, str] = {}
    for clip in (*catalog.clips, *left_out):
        names = [name for name in _names(clip, keys) if name in exclusions]
        matched.update(names)
        if names:
            reasons[clip.key] = exclusions[names[0]]
    excluded = tuple(
        ExcludedClip(clip=clip, reason="excluded", detail=reasons[clip.key])
        for clip in catalog.clips
        if clip.key in reasons
    )
    log.info(
        "exclusions: %d clips left out; %d of %d names match nothing",
        len(excluded),
        len(exclusions) - len(matched),
        len(exclusions),
    )
    if excluded and len(excluded) == len(catalog.clips):
        raise ValueError(
            f"the exclusion list names all {len(excluded)} clips: nothing is left to build"
        )
    return replace(
        catalog,
        clips=tuple(clip for clip in catalog.clips if clip.key not in reasons),
        excluded=(*catalog.excluded, *excluded),
    )


def _names(clip: Clip, keys: set[str]) -> list[str]:
    """What a list may call a clip by, the best first."""
    others = (clip.youtube_id, storage.name_of(clip.uri))
    return [clip.key, *(name for name in others if name not in keys)]
