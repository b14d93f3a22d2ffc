"""Charts as inline SVG in the text colour of the page around them, light or dark."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

_INK = "#010203"  # placeholder for the page's text colour
_ACCENT, _SECOND, _QUIET = "#2f7fb5", "#d9822b", "#7d8894"
_LINE = 1.6
_BOUND_COLORS = {"without sound": _SECOND, "with sound": _ACCENT}
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "aiaic",
}


def conditions(
    psnr: Mapping[str, float],
    bounds: Mapping[str, float],
    intervals: Mapping[str, Mapping[str, float]],
) -> str:
    """PSNR of each condition as a dot with its confidence interval, and the bounds as lines.

    Args:
        psnr: in dB, by the name of the condition.
        bounds: in dB, for ``without sound`` and ``with sound``.
        intervals: ``low`` and ``high`` of conditions; may be incomplete.
    """
    with _figure(6.4, 0.7 + 0.36 * len(psnr) + 0.4 * bool(bounds)) as (figure, svg):
        axes = figure.subplots()
        for position, (name, value) in enumerate(psnr.items()):
            color = _ACCENT if name == "matched" else _QUIET
            if interval := intervals.get(name):
                axes.plot((interval["low"], interval["high"]), (position,) * 2, color=color, lw=3)
            axes.plot(value, position, "o", color=color, ms=7)
            at_right = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 9}
            axes.text(1.02, position, f"{value:.1f}", **at_right)
        for name, value in bounds.items():
            line = {"color": _BOUND_COLORS[name], "lw": _LINE, "ls": (0, (4, 2))}
            axes.axvline(value, label=f"bound {name} {value:.1f}", **line)
        axes.set_yticks(range(len(psnr)), list(psnr))
        axes.set_ylim(len(psnr) - 0.5, -0.5)
        axes.margins(x=0.06)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("PSNR (dB), mean over clips")
        if bounds:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return svg[0]


def relevance(histograms: Mapping[str, Mapping[str, Any]], edges: Sequence[float]) -> str:
    """Histograms of the relevance of matched, mismatched and swapped sounds."""
    shown = {"matched": _ACCENT, "mismatched": _SECOND, "swapped": _QUIET}
    with _figure(6.4, 2.6) as (figure, svg):
        axes = figure.subplots()
        for name, color in shown.items():
            if name not in histograms:
                continue
            counts = np.asarray(histograms[name]["counts"], float)
            share = counts / max(1.0, counts.sum())
            label = f"{name}, mean {histograms[name]['mean']:.2f}"
            if name == "swapped":
                axes.stairs(share, edges, color=color, lw=_LINE, label=label)
            else:
                axes.stairs(share, edges, color=color, fill=True, alpha=0.55, label=label)
        axes.set_xlim(0, 1)
        axes.set_xlabel("relevance")
        axes.set_ylabel("share of clips")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return svg[0]


def curves(stages: Mapping[int, Sequence[Mapping[str, float]]]) -> str:
    """Training and validation loss of each stage."""
    with _figure(9.6, 2.4) as (figure, svg):
        panels = figure.subplots(1, len(stages), squeeze=False)[0]
        for axes, (number, rows) in zip(panels, stages.items(), strict=True):
            _loss(axes, rows)
            axes.set_title(f"stage {number}", fontsize=10)
            axes.set_xlabel("step")
        panels[0].set_ylabel("loss")
        panels[-1].legend(fontsize=9)
    return svg[0]


def histogram(values: NDArray[np.floating[Any]], label: str, counted: str) -> str:
    """A histogram; ``label`` names the values and their unit, ``counted`` what has them."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6 * max(1.0, abs(high)):  # all values are equal
        margin = max(0.5, 0.05 * abs(high))
        low, high = low - margin, high + margin
    counts, edges = np.histogram(values, 40, (low, high))
    with _figure(4.6, 1.9) as (figure, svg):
        axes = figure.subplots()
        axes.stairs(counts, edges, color=_ACCENT, fill=True)
        axes.set_xlim(low, high)
        axes.set_xlabel(label)
        axes.set_ylabel(counted)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    return svg[0]


def _loss(axes: Axes, rows: Sequence[Mapping[str, float]]) -> None:
    for name, label, style in (
        ("loss", "training", {"color": _QUIET, "lw": _LINE}),
        ("validation_loss", "validation", {"color": _ACCENT, "lw": _LINE, "marker": "o", "ms": 4}),
    ):
        points = [(row["step"], row[name]) for row in rows if name in row and "step" in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)
    axes.margins(y=0.15)
    axes.locator_params(nbins=4)


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, list[str]]]:
    """A figure to draw on, and a list that contains its SVG afterwards."""
    svg: list[str] = []
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, svg
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    svg.append(text[text.index("<svg") :].replace(_INK, "currentColor"))
