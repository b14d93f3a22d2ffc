"""AVE (Tian et al. 2018): ``Annotations.txt`` and the three official split files.

Rows are ``Category&VideoID&Quality&StartTime&EndTime``; the copy in the data set's zip has a
header line, the published one does not. Clips are ``<id>.mp4``.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_prep import storage
from data_prep.catalog.rows import (
    VIDEO_ID,
    Catalog,
    Clip,
    files_by_stem,
    finish,
    read_text,
    splits_in_name,
    whole_seconds,
)
from data_prep.catalog.splits import SPLITS


@dataclass(frozen=True)
class _Event:
    """An event as in both annotations and split files; times in seconds from the clip's start."""

    category: str
    youtube_id: str
    start: int
    end: int


def read_ave(
    annotations: str, splits: Sequence[str], clips_place: str, *, drop_leaks: bool = True
) -> Catalog:
    """Catalog of AVE: one sample per event, so one video may have several.

    ``splits`` are the official split files (``trainSet.txt``, ``valSet.txt``, ``testSet.txt``),
    recognized by name. Without any, every event is in ``train``; otherwise, events in none of them
    are left out.

    Raises:
        FileNotFoundError: annotations, a split file or the folder of clips is missing.
        ValueError: a row is malformed, or a split file contradicts the annotations or another one.
    """
    split_of_event = _read_splits(splits)
    files = files_by_stem(clips_place)
    events = [event for _, event in _events(annotations)]
    known = set(events)
    for event, (_, where) in split_of_event.items():
        if event not in known:
            raise ValueError(
                f"{where}: {event.youtube_id} ({event.category}) is not in {annotations}"
            )
    times_seen: Counter[tuple[str, int, int]] = Counter()
    clips: list[Clip] = []
    for event in events:
        window = (event.youtube_id, event.start, event.end)
        times_seen[window] += 1
        if splits and event not in split_of_event:
            continue
        split = split_of_event[event][0] if splits else "train"
        clips.append(_clip(event, times_seen[window], split, files, clips_place))
    return finish(clips, annotations, drop_leaks=drop_leaks)


def _clip(
    event: _Event,
    nth: int,
    split: str,
    files: dict[str, storage.StoredFile],
    clips_place: str,
) -> Clip:
    """The ``nth`` event with its window, which categories may share; the first has no number."""
    file = files.get(event.youtube_id)
    numbered = f"-{nth}" if nth > 1 else ""
    return Clip(
        key=f"{event.youtube_id}_{event.start:06d}_{event.end:06d}{numbered}",
        youtube_id=event.youtube_id,
        start_s=float(event.start),
        label=event.category,
        split=split,
        uri=file.uri if file else storage.join(clips_place, f"{event.youtube_id}.mp4"),
        stamp=file.stamp if file else "",
        event_start_s=float(event.start),
        event_end_s=float(event.end),
    )


def _events(place: str) -> Iterator[tuple[str, _Event]]:
    """File and line, and the event, of each row."""
    for line, text in enumerate(read_text(place).splitlines(), start=1):
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
        if not label or not VIDEO_ID.fullmatch(youtube_id):
            raise ValueError(f"{where}: category {label!r} or video id {youtube_id!r} is malformed")
        yield (
            where,
            _Event(label, youtube_id, whole_seconds(start, where), whole_seconds(end, where)),
        )


def _read_splits(places: Sequence[str]) -> dict[_Event, tuple[str, str]]:
    """Event -> its split, and the file and line that say so."""
    split_of_event: dict[_Event, tuple[str, str]] = {}
    place_of_split: dict[str, str] = {}
    for place in places:
        named = splits_in_name(place)
        if len(named) != 1:
            raise ValueError(
                f"{place}: its name must contain just one of {', '.join(SPLITS)}; rename it"
            )
        split = named[0]
        if place_of_split.setdefault(split, place) != place:
            raise ValueError(f"{place}: {place_of_split[split]} is already split {split}")
        for where, event in _events(place):
            before = split_of_event.setdefault(event, (split, where))
            if before[0] != split:
                raise ValueError(f"{where}: the same event is {before[0]} at {before[1]}")
    return split_of_event
