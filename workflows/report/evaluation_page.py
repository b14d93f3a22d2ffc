"""Renders an evaluation as one self-contained HTML file."""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from workflows.media import images
from workflows.report import charts, extremes, tables, templating
from workflows.report.examples import Example, SoundResult
from workflows.report.extremes import ExtremeClip

_PNG_SIDE_PX = 160  # larger pictures are embedded as JPEG
_LABELS_SHOWN = 6
_CONDITIONS = {
    "matched": "the clip's own sound",
    "missing": "no sound",
    "silent": "a sound of zeros",
    "mismatched": "the sound of another clip, which does not fit",
    "swapped": "the sibling's sound, compared with the scene in the sibling's colours",
    "image": "semantics of the colour picture instead of a sound (stage 1)",
    "noisy_10db": "the clip's own sound with white noise, SNR 10 dB",
    "noisy_0db": "the clip's own sound with white noise, SNR 0 dB",
    "unseen": "the clip's own sound, of labels that are not in the training split",
}
_NOT_COMPARABLE = {"swapped", "unseen"}
"""Conditions on other targets or clips than the bounds."""
_STRIPS = {
    extremes.BEST: ("Largest gain", "PSNR improves most with the clip's own sound."),
    extremes.WORST: ("Smallest gain", "PSNR improves least, or drops, with the clip's own sound."),
    extremes.FURTHEST: ("Lowest PSNR", "Furthest from the original with the clip's own sound."),
}
_TILES = {
    "guidance_gain_db": ("{:+.1f} dB", "PSNR gained with the clip's own sound"),
    "oracle_share": ("{:.0%}", "of the gain that sound makes possible"),
    "swapped_share": ("{:.0%}", "of the way to the sibling's colours"),
    "harm_db": ("{:.2f} dB", "PSNR lost with a mismatched sound"),
    "relevance_auc": ("{:.3f}", "AUC of relevance, matched vs. mismatched"),
}
_RETRIEVAL = {
    "r_at_1": "retrieval, R@1",
    "r_at_5": "retrieval, R@5",
    "r_at_1_by_class": "retrieval, R@1 by class",
    "median_rank": "retrieval, median rank",
    "n": "retrieval, clips",
    "cosine": "cosine of sound and picture",
    "cosine_ceiling": "its upper bound, from the class alone",
}
_NAMES = tables.HEADLINES | {name: tables.COLUMNS[name] for name in ("lpips", "fid", "kid")}


def render(
    result: Mapping[str, Any],
    rows: Sequence[Example],
    stages: Mapping[int, Mapping[str, Any]],
    strips: Mapping[str, Sequence[ExtremeClip]] | None = None,
) -> str:
    """The report as HTML.

    Args:
        result: the content of ``report.json``.
        rows: examples for the first screen; may be empty.
        stages: ``curves`` of each trained stage.
        strips: extreme clips, by the kinds of :mod:`workflows.report.extremes`.
    """
    environment = templating.environment()
    environment.filters |= {"cell": _cell, "metric": _metric, "name": _name, "spaced": _spaced}
    intervals = result.get("intervals", {})
    return environment.get_template("evaluation.html.j2").render(
        result=result,
        rows=[_row(example) for example in rows],
        has_siblings=bool(result["bounds"]),
        tiles=[
            (_signed(pattern.format(result[name])), note)
            for name, (pattern, note) in _TILES.items()
            if name in result
        ],
        columns={
            name: heading
            for name, heading in tables.COLUMNS.items()
            if any(name in row for row in result["conditions"].values())
        },
        descriptions=_CONDITIONS,
        intervals=intervals,
        intervals_note=tables.describe_intervals(intervals) if intervals else None,
        details=_details(result, intervals),
        strips=[
            (_STRIPS[kind], [_extreme(clip) for clip in clips])
            for kind, clips in (strips or {}).items()
        ],
        labels=_labels(result.get("labels", {})),
        charts=_charts(result, stages),
    )


def _details(result: Mapping[str, Any], intervals: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and values of the metrics of the model, with their intervals."""
    found = [
        (_name(name), _metric(result[name], intervals.get(name)))
        for name in tables.HEADLINES
        if name in result
    ]
    retrieval = result.get("retrieval", {})
    for name, heading in _RETRIEVAL.items():
        if name in retrieval:
            digits = 0 if name in ("n", "median_rank") else 3
            found.append((heading, _metric(retrieval[name], intervals.get(name), digits)))
    for name, value in result["ab_distance"].items():
        first, second = name.split("_", 1)
        found.append((f"ab distance, {first} to {second}", _metric(value, digits=2)))
    return found


def _labels(labels: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Labels sorted by their gain from sound: all, or the two ends if there are many."""
    ordered = sorted(labels.items(), key=lambda entry: -entry[1]["guidance_gain_db"])
    if len(ordered) <= 2 * _LABELS_SHOWN:
        return [("All labels", ordered)] if len(ordered) > 1 else []
    return [
        (f"{_LABELS_SHOWN} labels with the largest gain", ordered[:_LABELS_SHOWN]),
        (f"{_LABELS_SHOWN} labels with the smallest gain", ordered[-_LABELS_SHOWN:]),
    ]


def _cell(metric: str, value: float | None, interval: Mapping[str, float] | None = None) -> Markup:
    """A value for a table cell, with its interval below."""
    text = escape(_signed(tables.cell(metric, value)))
    if not interval:
        return text
    digits = tables.digits(metric)
    low, high = (_signed(f"{interval[end]:.{digits}f}") for end in ("low", "high"))
    return text + Markup("<small>({} to {})</small>").format(low, high)


def _metric(value: float, interval: Mapping[str, float] | None = None, digits: int = 3) -> str:
    """A value, with its interval beside it."""
    text = f"{value:.{digits}f}"
    if interval:
        text += f" ({interval['low']:.{digits}f} to {interval['high']:.{digits}f})"
    return _signed(text)


def _signed(text: str) -> str:
    """Typographic minus signs."""
    return text.replace("-", "\N{MINUS SIGN}") if text != "-" else text


def _name(identifier: str) -> str:
    """A name of the result as words: "noisy_10db" is "noisy, 10 dB", "fid" is "FID"."""
    if identifier in _NAMES:
        return _signed(_NAMES[identifier])
    words = re.sub(r"_(\d+)db$", r", \1 dB", identifier)
    return _spaced(re.sub(r"^stage(\d)$", r"stage \1", words))


def _spaced(label: str) -> str:
    return label.replace("_", " ")


def _charts(
    result: Mapping[str, Any], stages: Mapping[int, Mapping[str, Any]]
) -> dict[str, Markup]:
    """Charts by name; those without data are left out."""
    found: dict[str, str] = {}
    shown = {n: row for n, row in result["conditions"].items() if n not in _NOT_COMPARABLE}
    if shown:
        intervals = result.get("intervals", {}).get("psnr", {})
        found["conditions"] = charts.conditions(
            {_name(name): row["psnr"] for name, row in shown.items()},
            {_name(name): row["psnr"] for name, row in result["bounds"].items()},
            {_name(name): interval for name, interval in intervals.items()},
        )
    if "matched" in result.get("relevance", {}):
        found["relevance"] = charts.relevance(result["relevance"], result["relevance_bins"])
    drawn = {number: stage["curves"] for number, stage in stages.items() if stage["curves"]}
    if drawn:
        found["curves"] = charts.curves(drawn)
    return {name: Markup(svg) for name, svg in found.items()}  # noqa: S704 (our own SVG, no input)


def _row(example: Example) -> dict[str, Any]:
    return {
        "label": _spaced(example.label),
        "key": example.key,
        "grey": _picture(example.grey),
        "without_sound": _picture(example.without_sound),
        "own": _sound_result(example.own),
        "other": None if example.other is None else _sound_result(example.other),
        "truth": _picture(example.truth),
    }


def _extreme(clip: ExtremeClip) -> dict[str, Any]:
    gain = clip.psnr_matched - clip.psnr_missing
    return {
        "key": clip.key,
        "label": _spaced(clip.label),
        "grey": _picture(clip.grey),
        "without_sound": _picture(clip.without_sound),
        "own": _picture(clip.own),
        "truth": _picture(clip.truth),
        "psnr_missing": f"{clip.psnr_missing:.1f}",
        "psnr_matched": f"{clip.psnr_matched:.1f}",
        "gain": _signed(f"{gain:+.1f} dB"),
    }


def _sound_result(result: SoundResult) -> dict[str, Any]:
    return {
        "picture": _picture(result.rgb),
        "relevance": result.relevance,
        "wav": f"data:audio/wav;base64,{base64.b64encode(result.wav).decode()}",
        "label": _spaced(result.label),
    }


def _picture(rgb: NDArray[np.uint8]) -> str:
    kind = "png" if max(rgb.shape[:2]) <= _PNG_SIDE_PX else "jpeg"
    content = base64.b64encode(images.encode(rgb, f".{kind}")).decode()
    return f"data:image/{kind};base64,{content}"
