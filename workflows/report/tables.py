"""Formats the results of an evaluation as plain text."""

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = {
    "psnr": "PSNR dB",
    "ssim": "SSIM",
    "mse_ab": "MSE ab",
    "colorfulness": "colourf.",
    "colorfulness_difference": "|CF diff|",
    "lpips": "LPIPS",
    "fid": "FID",
    "kid": "KID",
    "relevance": "relevance",
    "n": "clips",
}
"""Metrics of a condition and their column headings."""

_DIGITS = {"psnr": 2, "mse_ab": 5, "ssim": 3, "lpips": 3, "kid": 4, "relevance": 2}

HEADLINES = {
    "guidance_gain_db": "guidance gain (matched - missing), dB",
    "harm_db": "harm (missing - mismatched), dB",
    "oracle_share": "oracle share (0: no sound, 1: bound)",
    "swapped_share": "swapped share",
    "relevance_auc": "relevance AUC",
    "probe_accuracy": "lightness probe (chance: 1 / siblings)",
    "colour_leak_r2": "colour leak into scene semantics, R2",
}
"""Metrics of a model and their names."""


def evaluation(result: Mapping[str, Any]) -> str:
    """Protocol, metrics by condition, bounds, metrics of the model, and what was not measured."""
    rows = {**result["conditions"]}
    rows |= {f"bound {name}".replace("_", " "): row for name, row in result["bounds"].items()}
    known = result.get("intervals", {})
    lines = [protocol(result["protocol"]), "", table("condition", rows, known.get("psnr", {})), ""]
    for name, heading in HEADLINES.items():
        if name in result:
            lines.append(f"{heading:<40}{result[name]:8.3f}{_between(known.get(name), 3)}")
    retrieval = result.get("retrieval", {})
    if retrieval:
        ranks = (f"{retrieval[name]:.3f}" for name in ("r_at_1", "r_at_5", "median_rank"))
        lines.append(f"{'retrieval: R@1, R@5, median rank':<40}   {', '.join(ranks)}")
    if "cosine_ceiling" in retrieval:
        cosines = (f"{retrieval[name]:.3f}" for name in ("cosine", "cosine_ceiling"))
        lines.append(f"{'cosine of sound and picture, upper bound':<40}   {', '.join(cosines)}")
    if "videos" in result:
        lines.append(videos(result["videos"]))
    if known:
        lines.append(describe_intervals(known))
    lines += [f"note: {name}: {note}" for name, note in result.get("notes", {}).items()]
    lines += [f"not measured: {name}: {reason}" for name, reason in result["absent"].items()]
    return "\n".join(lines)


def protocol(named: Mapping[str, Any]) -> str:
    """What was evaluated and how, in one line."""
    weights = named["weights"]
    return (
        f"{named['n']} clips of split '{named['split']}' at {named['size']} px ({named['crop']}); "
        f"stage {weights['stage']}, step {weights['step']}, weights {weights['model_sha256'][:12]}"
    )


def videos(scores: Mapping[str, Any]) -> str:
    """PSNR of videos against their originals, and their flicker, in one line."""
    return (
        f"{scores['n']} videos: {scores['psnr_db']:.2f} dB, "
        f"flicker {scores['flicker_ab']:.2f} in ab (originals: {scores['original_flicker_ab']:.2f})"
    )


def describe_intervals(intervals: Mapping[str, Any]) -> str:
    """What the numbers in parentheses are."""
    return (
        f"in parentheses: {intervals['level']:.0%} confidence interval, bootstrap over "
        f"{intervals['videos']} videos"
    )


def table(
    heading: str,
    rows: Mapping[str, Mapping[str, Any]],
    intervals: Mapping[str, Mapping[str, float]] | None = None,
) -> str:
    """Rows of metrics, with a column for each metric that any row has.

    Args:
        heading: heading of the first column.
        rows: metrics of each row, by its name.
        intervals: confidence intervals of PSNR, by the name of a row.
    """
    known = intervals or {}
    metrics = [name for name in COLUMNS if any(name in row for row in rows.values())]
    cells: list[Sequence[str]] = [[heading, *(COLUMNS[name] for name in metrics)]]
    for name, row in rows.items():
        texts = [
            cell(metric, row.get(metric), known.get(name) if metric == "psnr" else None)
            for metric in metrics
        ]
        cells.append([name, *texts])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def cell(metric: str, value: float | None, interval: Mapping[str, float] | None = None) -> str:
    """One value with the digits of its metric, and its confidence interval."""
    if value is None:
        return "-"
    if metric == "n":
        return str(int(value))
    return f"{value:.{digits(metric)}f}{_between(interval, digits(metric))}"


def digits(metric: str) -> int:
    """Number of decimals to show of a metric."""
    return _DIGITS.get(metric, 1)


def _between(interval: Mapping[str, float] | None, digits: int) -> str:
    if not interval:
        return ""
    return f" ({interval['low']:.{digits}f} to {interval['high']:.{digits}f})"
