"""What a shard set holds, in figures for people: counts, labels, times, sizes, levels, fates."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from data_prep.catalog.splits import SPLITS
from data_prep.shards.manifest import WRITTEN, Manifest
from workflows.report import charts

MAX_LABELS = 400
"""More labels than these are counted only."""
_FRAME_SIZES, _EXAMPLES = 8, 4
Index = Any  # a pyarrow.Table, which has no types


@dataclasses.dataclass(frozen=True, kw_only=True)
class Histogram:
    """How values spread."""

    svg: Markup
    told: str
    """Median, middle 90 % and extremes."""


def split_rows(index: Index) -> list[dict[str, Any]]:
    """Clips, videos, sounds and hours of sound of each split that has clips."""
    written = _written(index)
    videos, splits = written.column("youtube_id").to_pylist(), written.column("split").to_pylist()
    seconds, heard = _numbers(written, "sound_s"), _numbers(written, "has_sound")
    rows: list[dict[str, Any]] = []
    of_row = np.array(splits, object)
    for split in SPLITS:
        mine = of_row == split
        if mine.any():
            found = {
                "split": split,
                "clips": int(mine.sum()),
                "videos": len({v for v, s in zip(videos, splits, strict=True) if s == split}),
                "with_sound": int(heard[mine].sum()),
                "hours": float(seconds[mine].sum()) / 3600,
            }
            rows.append(found)
    return rows


def label_rows(index: Index) -> list[dict[str, Any]]:
    """Written clips of each label by split, and how many were rejected; the most frequent first."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    columns = (index.column(name).to_pylist() for name in ("label", "split", "fate"))
    for label, split, fate in zip(*columns, strict=True):
        counts[label][split if fate == WRITTEN else "rejected"] += 1
    rows = [
        {
            "label": label,
            "clips": sum(of_label[split] for split in SPLITS),
            "rejected": of_label["rejected"],
            "splits": {split: of_label[split] for split in SPLITS if of_label[split]},
        }
        for label, of_label in counts.items()
    ]
    rows.sort(key=lambda row: (-row["clips"], row["label"]))
    most = max((row["clips"] for row in rows), default=0)
    return [row | {"stops": list(_stops(row["splits"], most))} for row in rows]


def _stops(splits: Mapping[str, int], most: int) -> Iterator[tuple[str, float, float]]:
    """Split, begin and end, in percent of the most frequent label, of each part of a bar."""
    begin = 0
    for split, clips in splits.items():
        yield split, 100 * begin / most, 100 * (begin + clips) / most
        begin += clips


def rejection_rows(index: Index, order: Sequence[int]) -> list[dict[str, Any]]:
    """Reasons, the most frequent first, each with a few clips by name, in the order given."""
    fates = index.column("fate").to_pylist()
    examples: defaultdict[str, list[int]] = defaultdict(list)
    for row in order:
        if fates[row] != WRITTEN and len(examples[fates[row]]) < _EXAMPLES:
            examples[fates[row]].append(row)
    counts = Counter(fate for fate in fates if fate != WRITTEN)
    return [
        {
            "reason": reason,
            "clips": clips,
            "share": clips / len(fates),
            "examples": index.select(["key", "detail"]).take(examples[reason]).to_pylist(),
        }
        for reason, clips in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def histograms(index: Index) -> dict[str, Histogram]:
    """Times, sizes, levels and measures of the written clips; without values, nothing is drawn."""
    written = _written(index)
    heard = written.filter(written.column("has_sound"))
    requested, actual = (_all(written, name) for name in ("requested_s", "actual_s"))
    deviation_ms = 1000 * (actual - requested)
    series: dict[str, tuple[NDArray[Any], str, str]] = {
        "sound_s": (_numbers(heard, "sound_s"), "length of the sound, s", "clips"),
        "source_s": (_numbers(written, "source_s"), "length of the source, s", "clips"),
        "requested_s": (requested, "time of the picture in its file, s", "pictures"),
        "deviation_ms": (deviation_ms, "frame taken later than asked for, ms", "pictures"),
        "source_bytes": (_numbers(written, "source_bytes") / 1e6, "source file, MB", "clips"),
        "picture_bytes": (_all(written, "picture_sizes") / 1e3, "picture, kB", "pictures"),
        "sound_bytes": (_numbers(heard, "sound_size") / 1e3, "sound, kB", "clips"),
        "rms_dbfs": (_numbers(heard, "rms_dbfs"), "level (RMS), dBFS", "clips"),
        "peak_dbfs": (_numbers(heard, "peak_dbfs"), "peak, dBFS", "clips"),
        "colorfulness": (_numbers(written, "colorfulness"), "colourfulness", "clips"),
        "motion": (_numbers(written, "motion"), "motion, levels of 255", "clips"),
    }
    return {
        name: Histogram(
            svg=Markup(charts.histogram(values, *words)),  # noqa: S704 (our own SVG, no input)
            told=_told(values),
        )
        for name, (values, *words) in series.items()
        if len(values)
    }


def frame_sizes(index: Index) -> list[tuple[str, int, str]]:
    """Frame size of the source, number of clips, and the pictures made of them; a few, by number.

    The last row counts all others.
    """
    names = ("source_width", "source_height", "width", "height")
    columns = (_written(index).column(name).to_pylist() for name in names)
    sizes: defaultdict[tuple[int, int], Counter[tuple[int, int]]] = defaultdict(Counter)
    for source_width, source_height, width, height in zip(*columns, strict=True):
        sizes[source_width, source_height][width, height] += 1
    ranked = sorted(sizes.items(), key=lambda item: (-item[1].total(), item[0]))
    rows = [
        (_by(source), made.total(), ", ".join(_by(size) for size, _ in made.most_common(2)))
        for source, made in ranked[:_FRAME_SIZES]
    ]
    others = ranked[_FRAME_SIZES:]
    if others:
        rows.append((f"{len(others)} others", sum(made.total() for _, made in others), ""))
    return rows


def sound_fates(index: Index) -> dict[str, int]:
    """What became of the sound of the written clips, the most frequent first."""
    return dict(Counter(_written(index).column("sound_fate").to_pylist()).most_common())


def cropped(index: Index) -> int:
    """Written clips whose black bars were cut away."""
    return sum(map(bool, _written(index).column("crop").to_pylist()))


def settings(manifest: Manifest) -> list[tuple[str, str]]:
    """Every setting of the build by its dotted name."""
    return list(_flat(manifest.settings))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", "not set" if value is None else str(value)


def _written(index: Index) -> Index:
    return index.filter([fate == WRITTEN for fate in index.column("fate").to_pylist()])


def _numbers(index: Index, name: str) -> NDArray[Any]:
    """A column's values that are not null."""
    return index.column(name).drop_null().to_numpy().astype(float)


def _all(index: Index, name: str) -> NDArray[Any]:
    """The values of all lists in a column."""
    return np.asarray([x for row in index.column(name).to_pylist() for x in row], float)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} \N{MULTIPLICATION SIGN} {size[1]}"


def _told(values: NDArray[Any]) -> str:
    low, median, high = np.percentile(values, (5, 50, 95))
    if values.min() == values.max():
        return f"all {_figure(median)}"
    return (
        f"median {_figure(median)}; nine in ten from {_figure(low)} to {_figure(high)}; "
        f"extremes {_figure(values.min())} and {_figure(values.max())}"
    )


def _figure(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}") if abs(value) < 1000 else f"{value:,.0f}"
