"""An evaluation as one self-contained HTML file."""

import base64
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
_NOTES = {
    "matched": "the clip's own sound",
    "missing": "no sound",
    "silent": "a sound of zeros",
    "mismatched": "another clip's sound, which does not fit",
    "swapped": "the sibling's sound, against the scene in the sibling's colours",
    "image": "the colour picture itself instead of a sound (stage 1)",
    "noisy_10db": "own sound in white noise, SNR 10 dB",
    "noisy_0db": "own sound in white noise, SNR 0 dB",
    "unseen": "own sound, of labels that training had not",
}
_STRIPS = {
    extremes.BEST: ("Where sound helps most", "the largest gain of the own sound over none"),
    extremes.WORST: ("Where sound helps least, or harms", "the smallest gain, or the largest loss"),
    extremes.FURTHEST: ("Furthest from the truth", "the lowest PSNR with the own sound"),
}
_LABELS_SHOWN = 6
_TILES = {
    "guidance_gain_db": ("{:+.1f} dB", "PSNR gained by hearing its own sound"),
    "oracle_share": ("{:.0%}", "of what sound can tell is made use of"),
    "swapped_share": ("{:.0%}", "of the way to the sibling's colours"),
    "harm_db": ("{:.2f} dB", "PSNR lost by a sound that does not fit"),
    "relevance_auc": ("{:.3f}", "AUC of relevance, fit against misfit"),
}


def render(
    result: Mapping[str, Any],
    rows: Sequence[Example],
    stages: Mapping[int, Mapping[str, Any]],
    strips: Mapping[str, Sequence[ExtremeClip]] | None = None,
) -> str:
    """The report's HTML.

    Args:
        result: what ``aiaic evaluate`` found, as JSON values.
        rows: pictures for the first screen; may be none.
        stages: ``curves`` of each trained stage.
        strips: extreme clips, by the names of :mod:`workflows.report.extremes`.
    """
    environment = templating.environment()
    environment.filters |= {
        "cell": _cell,
        "figure": _figure,
        "spaced": lambda text: text.replace("_", " "),
    }
    intervals = result.get("intervals", {})
    return environment.get_template("report.html.j2").render(
        result=result,
        rows=[_row(example) for example in rows],
        siblings=bool(result["bounds"]),
        tiles=[
            (pattern.format(result[name]).replace("-", "\N{MINUS SIGN}"), note)
            for name, (pattern, note) in _TILES.items()
            if name in result
        ],
        columns={
            name: heading
            for name, heading in tables.COLUMNS.items()
            if any(name in row for row in result["conditions"].values())
        },
        notes=_NOTES,
        intervals=intervals,
        intervals_told=tables.told(intervals) if intervals else None,
        headlines=[name for name in tables.HEADLINES if name in result],
        strips=[
            (_STRIPS[name], [_case(case) for case in found])
            for name, found in (strips or {}).items()
        ],
        labels=_labels(result.get("labels", {})),
        charts=_charts(result, stages),
    )


def _labels(labels: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Labels by what they gain by sound: all, or where there are many the two ends."""
    ordered = sorted(labels.items(), key=lambda entry: -entry[1]["guidance_gain_db"])
    if len(ordered) <= 2 * _LABELS_SHOWN:
        return [("All labels", ordered)] if len(ordered) > 1 else []
    return [
        (f"The {_LABELS_SHOWN} labels that gain most", ordered[:_LABELS_SHOWN]),
        (f"The {_LABELS_SHOWN} labels that gain least", ordered[-_LABELS_SHOWN:]),
    ]


def _cell(metric: str, value: float | None, interval: Mapping[str, float] | None = None) -> Markup:
    """A figure with its interval under it."""
    text = escape(_signed(tables.cell(metric, value)))
    if not interval:
        return text
    digits = tables.digits(metric)
    low, high = (_signed(f"{interval[end]:.{digits}f}") for end in ("low", "high"))
    return text + Markup("<small>({} to {})</small>").format(low, high)


def _figure(value: float, interval: Mapping[str, float] | None = None, digits: int = 3) -> str:
    """A figure with its interval beside it."""
    text = f"{value:.{digits}f}"
    if interval:
        text += f" ({interval['low']:.{digits}f} to {interval['high']:.{digits}f})"
    return _signed(text)


def _signed(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}") if text != "-" else text


def _charts(
    result: Mapping[str, Any], stages: Mapping[int, Mapping[str, Any]]
) -> dict[str, Markup]:
    """Charts by name; those without numbers are left out."""
    found: dict[str, str] = {}
    # A swapped sound is scored against other pictures, to which these bounds do not apply.
    comparable = {
        n: row for n, row in result["conditions"].items() if n not in {"swapped", "unseen"}
    }
    if comparable:
        named = {name.replace("_", " "): row for name, row in comparable.items()}
        found["conditions"] = charts.conditions(named, result["bounds"])
    if "matched" in result.get("relevance", {}):
        found["relevance"] = charts.relevance(result["relevance"], result["relevance_bins"])
    drawn = {number: stage["curves"] for number, stage in stages.items() if stage["curves"]}
    if drawn:
        found["curves"] = charts.curves(drawn)
    return {name: Markup(svg) for name, svg in found.items()}  # noqa: S704 (our own SVG, no input)


def _row(example: Example) -> dict[str, Any]:
    return {
        "label": example.label.replace("_", " "),
        "key": example.key,
        "grey": _picture(example.grey),
        "without_sound": _picture(example.without_sound),
        "own": _sound_result(example.own),
        "other": None if example.other is None else _sound_result(example.other),
        "truth": _picture(example.truth),
    }


def _case(case: ExtremeClip) -> dict[str, Any]:
    gain = case.psnr_matched - case.psnr_missing
    return {
        "key": case.key,
        "label": case.label.replace("_", " "),
        "grey": _picture(case.grey),
        "without_sound": _picture(case.without_sound),
        "own": _picture(case.own),
        "truth": _picture(case.truth),
        "psnr_missing": f"{case.psnr_missing:.1f}",
        "psnr_matched": f"{case.psnr_matched:.1f}",
        "gain": _signed(f"{gain:+.1f} dB"),
    }


def _sound_result(result: SoundResult) -> dict[str, Any]:
    return {
        "picture": _picture(result.rgb),
        "relevance": result.relevance,
        "wav": f"data:audio/wav;base64,{base64.b64encode(result.wav).decode()}",
        "label": result.label.replace("_", " "),
    }


def _picture(rgb: NDArray[np.uint8]) -> str:
    kind = "png" if max(rgb.shape[:2]) <= _PNG_SIDE_PX else "jpeg"
    content = base64.b64encode(images.encode(rgb, f".{kind}")).decode()
    return f"data:image/{kind};base64,{content}"
