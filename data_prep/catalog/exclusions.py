"""Exclusion lists: clips to leave out of a build, written by hand or by ``aiaic duplicates``.

A list is a CSV file of ``name,reason``. The header and reasons are optional; blank lines and lines
that start with ``#`` are ignored. A name is a clip's key, its video's id (for all of its clips), or
its file's name without folders.
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
NO_REASON = "named by the exclusion list"
"""The reason of names that have none."""


def read_exclusions(place: str) -> dict[str, str]:
    """Name -> reason; for a repeated name, the first reason counts.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a row is malformed; the message has file and line.
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
        reasons.setdefault(name, (rest[0] if rest else "") or NO_REASON)
    return reasons


def encode_exclusions(reasons: Iterable[tuple[str, str]]) -> bytes:
    """A list for ``read_exclusions``: the same bytes for the same names and reasons."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(reasons)
    return text.getvalue().encode()


def exclude(catalog: Catalog, exclusions: Mapping[str, str]) -> Catalog:
    """The catalog with the listed clips moved from ``clips`` to ``excluded``.

    A name that is a clip's key means only that clip, even if a video has the same name. Names that
    match nothing are only counted in the log, as a list may serve several data sets. Clips that are
    already left out keep their reason.

    Raises:
        ValueError: no clip is left.
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
    """Names of a clip in a list, the most specific first."""
    others = (clip.youtube_id, storage.name_of(clip.uri))
    return [clip.key, *(name for name in others if name not in keys)]
