"""Results as plain-text tables."""

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = {
    "psnr": "PSNR dB",
    "ssim": "SSIM",
    "mse_ab": "MSE ab",
    "colorfulness": "colourf.",
    "colorfulness_difference": "|CF diff|",
    "relevance": "relevance",
    "n": "clips",
}
"""Metrics of a condition and their headings."""

HEADLINES = {
    "guidance_gain_db": "guidance gain (matched - missing), dB",
    "harm_db": "harm (missing - mismatched), dB",
    "oracle_share": "oracle share",
    "swapped_share": "swapped share",
    "relevance_auc": "relevance AUC",
    "probe_accuracy": "probe on the grey (chance 1 / siblings)",
}
"""Figures of a model and their names."""


def evaluation(result: Mapping[str, Any]) -> str:
    """Conditions, bounds and figures of an evaluation, and what is absent and why."""
    rows = {**result["conditions"]}
    rows |= {f"bound {name}".replace("_", " "): row for name, row in result["bounds"].items()}
    lines = [table("condition", rows), ""]
    for name, heading in HEADLINES.items():
        if name in result:
            lines.append(f"{heading:<40}{result[name]:8.3f}")
    retrieval = result.get("retrieval", {})
    if retrieval:
        ranks = (f"{retrieval[name]:.3f}" for name in ("r_at_1", "r_at_5", "median_rank"))
        lines.append(f"{'retrieval: R@1, R@5, median rank':<40}   {', '.join(ranks)}")
    lines += [f"absent: {name} ({reason})" for name, reason in result["absent"].items()]
    return "\n".join(lines)


def table(heading: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows of metrics, with a column for each metric that any row has."""
    metrics = [name for name in COLUMNS if any(name in row for row in rows.values())]
    cells: list[Sequence[str]] = [[heading, *(COLUMNS[name] for name in metrics)]]
    for name, row in rows.items():
        cells.append([name, *(cell(metric, row.get(metric)) for metric in metrics)])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )


def cell(metric: str, value: float | None) -> str:
    """One figure, with the digits that its metric deserves."""
    if value is None:
        return "-"
    if metric == "n":
        return str(int(value))
    digits = {"psnr": 2, "mse_ab": 5, "ssim": 3, "relevance": 2}.get(metric, 1)
    return f"{value:.{digits}f}"
