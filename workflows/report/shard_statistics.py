"""Statistics of a shard set for people: counts, labels, times, sizes, levels, rejections."""

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
"""Further labels are only counted."""
_FRAME_SIZES, _EXAMPLES = 8, 4
Index = Any  # a pyarrow.Table, which has no types


@dataclasses.dataclass(frozen=True, kw_only=True)
class Histogram:
    """The distribution of some values."""

    svg: Markup
    summary: str
    """Median, central 90 % and range."""


def split_rows(index: Index) -> list[dict[str, Any]]:
    """Number of clips, videos, sounds and hours of sound, for each split with clips."""
    written = _written(index)
    videos, splits = written.column("youtube_id").to_pylist(), written.column("split").to_pylist()
    seconds, has_sound = _numbers(written, "sound_s"), _numbers(written, "has_sound")
    rows: list[dict[str, Any]] = []
    of_row = np.array(splits, object)
    for split in SPLITS:
        mine = of_row == split
        if mine.any():
            found = {
                "split": split,
                "clips": int(mine.sum()),
                "videos": len({v for v, s in zip(videos, splits, strict=True) if s == split}),
                "with_sound": int(has_sound[mine].sum()),
                "hours": float(seconds[mine].sum()) / 3600,
            }
            rows.append(found)
    return rows


def label_rows(index: Index) -> list[dict[str, Any]]:
    """Written clips of each label by split, and rejected ones; the most frequent label first."""
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
    """Split, start and end of each part of a bar, in percent of the most frequent label."""
    start = 0
    for split, clips in splits.items():
        yield split, 100 * start / most, 100 * (start + clips) / most
        start += clips


def rejection_rows(index: Index, order: Sequence[int]) -> list[dict[str, Any]]:
    """Reasons of rejection with a few example clips each; the most frequent reason first."""
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
    """Times, sizes, levels and measures of the written clips; empty columns are left out."""
    written = _written(index)
    sounds = written.filter(written.column("has_sound"))
    requested, actual = (_all(written, name) for name in ("requested_s", "actual_s"))
    deviation_ms = 1000 * (actual - requested)
    series: dict[str, tuple[NDArray[Any], str, str]] = {
        "sound_s": (_numbers(sounds, "sound_s"), "sound duration (s)", "clips"),
        "source_s": (_numbers(written, "source_s"), "source duration (s)", "clips"),
        "requested_s": (requested, "picture time in the source (s)", "pictures"),
        "deviation_ms": (deviation_ms, "frame time minus requested time (ms)", "pictures"),
        "source_bytes": (_numbers(written, "source_bytes") / 1e6, "source file size (MB)", "clips"),
        "picture_bytes": (_all(written, "picture_sizes") / 1e3, "picture size (kB)", "pictures"),
        "sound_bytes": (_numbers(sounds, "sound_size") / 1e3, "sound size (kB)", "clips"),
        "rms_dbfs": (_numbers(sounds, "rms_dbfs"), "RMS level (dBFS)", "clips"),
        "peak_dbfs": (_numbers(sounds, "peak_dbfs"), "peak level (dBFS)", "clips"),
        "colorfulness": (_numbers(written, "colorfulness"), "colourfulness", "clips"),
        "motion": (_numbers(written, "motion"), "motion (levels of 255)", "clips"),
    }
    return {
        name: Histogram(
            svg=Markup(charts.histogram(values, *words)),  # noqa: S704 (our own SVG, no input)
            summary=_summary(values),
        )
        for name, (values, *words) in series.items()
        if len(values)
    }


def frame_sizes(index: Index) -> list[tuple[str, int, str]]:
    """The most frequent source frame sizes, their number of clips, and the sizes of their pictures.

    The last row counts all other sizes.
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
    """What happened to the sound of the written clips, and how often; the most frequent first."""
    return dict(Counter(_written(index).column("sound_fate").to_pylist()).most_common())


def cropped(index: Index) -> int:
    """Number of written clips whose black bars were cropped."""
    return sum(map(bool, _written(index).column("crop").to_pylist()))


def settings(manifest: Manifest) -> list[tuple[str, str]]:
    """All settings of the build, by dotted name."""
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
    """The values of a column that are not null."""
    return index.column(name).drop_null().to_numpy().astype(float)


def _all(index: Index, name: str) -> NDArray[Any]:
    """The values of all lists in a column."""
    return np.asarray([x for row in index.column(name).to_pylist() for x in row], float)


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]} \N{MULTIPLICATION SIGN} {size[1]}"


def _summary(values: NDArray[Any]) -> str:
    low, median, high = np.percentile(values, (5, 50, 95))
    if values.min() == values.max():
        return f"all values are {_number(median)}"
    return (
        f"median {_number(median)}; 90% within {_number(low)} to {_number(high)}; "
        f"range {_number(values.min())} to {_number(values.max())}"
    )


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "\N{MINUS SIGN}") if abs(value) < 1000 else f"{value:,.0f}"
