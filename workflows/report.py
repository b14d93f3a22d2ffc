"""An evaluation as one self-contained HTML file."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from workflows import charts, pages, pictures, tables
from workflows.examples import Example, Heard

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
_TILES = {
    "guidance_gain_db": ("{:+.1f} dB", "PSNR gained by hearing its own sound"),
    "oracle_share": ("{:.0%}", "of what sound can tell is made use of"),
    "swapped_share": ("{:.0%}", "of the way to the sibling's colours"),
    "harm_db": ("{:.2f} dB", "PSNR lost by a sound that does not fit"),
    "relevance_auc": ("{:.3f}", "AUC of relevance, fit against misfit"),
}


def render(
    result: Mapping[str, Any], rows: Sequence[Example], stages: Mapping[int, Mapping[str, Any]]
) -> str:
    """The report's HTML.

    Args:
        result: what ``aiaic evaluate`` found, as JSON values.
        rows: pictures for the first screen; may be none.
        stages: ``curves`` of each trained stage.
    """
    environment = pages.environment()
    environment.filters |= {"cell": tables.cell, "spaced": lambda text: text.replace("_", " ")}
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
        charts=_charts(result, stages),
    )


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
        "own": _heard(example.own),
        "other": None if example.other is None else _heard(example.other),
        "truth": _picture(example.truth),
    }


def _heard(heard: Heard) -> dict[str, Any]:
    return {
        "picture": _picture(heard.rgb),
        "relevance": heard.relevance,
        "wav": f"data:audio/wav;base64,{base64.b64encode(heard.wav).decode()}",
        "label": heard.label.replace("_", " "),
    }


def _picture(rgb: NDArray[np.uint8]) -> str:
    kind = "png" if max(rgb.shape[:2]) <= _PNG_SIDE_PX else "jpeg"
    content = base64.b64encode(pictures.encode(rgb, f".{kind}")).decode()
    return f"data:image/{kind};base64,{content}"
