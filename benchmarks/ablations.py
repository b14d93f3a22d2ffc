"""What is each part of the method worth? Trainings of the synthetic world, with parts taken away.

    python benchmarks/ablations.py --out FOLDER --seeds 0 1 2              # the method itself
    python benchmarks/ablations.py --out FOLDER --variants all             # every variant, one seed
    python benchmarks/ablations.py --out FOLDER --world hard --seeds 0

Each run is trained in its own process without Ray and evaluated; finished ones are kept, so that an
interrupted call resumes, and several calls may share the work. Prints one JSON object of all runs
found under FOLDER, and a table on stderr.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from aiaic import recipes
from aiaic.recipes import VARIANTS

LATER = {"no_info_nce", "no_distillation", "augmented"}
"""Variants that differ from the method from stage 2 on, and start from its stage 1."""

COLUMNS = {
    "matched": lambda r: r["conditions"]["matched"]["psnr"],
    "missing": lambda r: r["conditions"]["missing"]["psnr"],
    "over bound": lambda r: (
        r["conditions"]["missing"]["psnr"] - r["bounds"]["without_sound"]["psnr"]
    ),
    "oracle": lambda r: r["oracle_share"],
    "swapped": lambda r: r["swapped_share"],
    "harm": lambda r: r["harm_db"],
    "silent harm": lambda r: r["paired"]["missing"]["psnr"] - r["conditions"]["silent"]["psnr"],
    "AUC": lambda r: r.get("relevance_auc"),
    "R@1": lambda r: r.get("retrieval", {}).get("r_at_1_by_class"),
    "leak R2": lambda r: r.get("colour_leak_r2"),
    "cosine": lambda r: r.get("retrieval", {}).get("cosine"),
    "ceiling": lambda r: r.get("retrieval", {}).get("cosine_ceiling"),
}


def main() -> None:
    options = arguments()
    names = list(VARIANTS) if options.variants == ["all"] else options.variants
    for seed in options.seeds:
        folder = Path(options.out, options.world, f"seed{seed}")
        world = make_world(folder, options, seed)
        for name in names:
            train(folder, name, seed, options)
            evaluate(folder, name, world)
    found = results(Path(options.out))
    for line in table(found):
        print(line, file=sys.stderr)
    print(json.dumps(found))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--world", choices=("plain", "hard"), default="plain")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--variants", nargs="*", default=["best"])
    parser.add_argument("--clips", type=int, default=1600)
    parser.add_argument("--set", nargs="*", default=[], help="settings of all runs, KEY=VALUE")
    parser.add_argument("--networks", default="compact", help="recipe whose variants are trained")
    parser.add_argument("--size-px", type=int, default=96)
    parser.add_argument("--label", default="", help="added to the names of the runs")
    return parser.parse_args()


def make_world(folder: Path, options: argparse.Namespace, seed: int) -> Path:
    world = folder / "world"
    aiaic("synthesize", "--out", world, "--clips", options.clips, "--seed", seed,
          "--world", options.world)  # fmt: skip
    aiaic("prepare", "--dataset", "vggsound", "--annotations", world / "vggsound.csv",
          "--clips", world / "clips", "--out", folder / "shards", "--size-px", options.size_px,
          "--clips-per-shard", 64, "--workers", 0)  # fmt: skip
    return world


def train(folder: Path, name: str, seed: int, options: argparse.Namespace) -> None:
    run = folder / f"{name}{options.label}"
    settings = [f"sampling.seed={seed}", *options.set]
    stages: list[tuple[str, list[str]]] = [("all", [])]
    if name == "from_scratch":  # with as many steps as all stages have together
        whole = recipes.load(f"{options.networks}/{name}", settings=settings)
        steps = whole.stage1.steps + whole.stage2.steps + whole.stage3.steps
        stages = [("3", [])]
        settings.append(f"stage3.steps={steps}")
    elif name in LATER:
        stages = [("2", ["--init", str(folder / f"best{options.label}")]), ("3", [])]
    for stage, rest in stages:
        aiaic("train", "--stage", stage, "--recipe", f"{options.networks}/{name}", "--shards",
              folder / "shards", "--out", run, "--tracking-uri", "none", *rest,
              "--set", *settings)  # fmt: skip


def evaluate(folder: Path, name: str, world: Path) -> None:
    for run in sorted(folder.glob(f"{name}*")):
        if (run / "stage3" / "stage.json").is_file() and not report_of(run).is_file():
            aiaic("evaluate", "--shards", folder / "shards", "--checkpoint", run,
                  "--truth", world, "--tracking-uri", "none")  # fmt: skip


def aiaic(*arguments: object) -> None:
    command = [sys.executable, "-m", "workflows.cli", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=sys.stderr)


def report_of(run: Path) -> Path:
    return run / "evaluation" / "report.json"


def results(out: Path) -> list[dict]:
    """One row of figures for each evaluated run."""
    rows = []
    for world in ("plain", "hard"):
        for seed in sorted((out / world).glob("seed*")):
            for run in sorted(seed.iterdir()):
                if report_of(run).is_file():
                    report = json.loads(report_of(run).read_text())
                    figures = {name: value(report) for name, value in COLUMNS.items()}
                    at = {"world": world, "seed": int(seed.name[4:]), "run": run.name}
                    rows.append(at | figures | {"seconds": report["seconds"]})
    return rows


def table(rows: list[dict]) -> list[str]:
    """Markdown."""
    names = ["world", "seed", "run", *COLUMNS]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = [f"{v:.3f}" if isinstance(v := row[name], float) else str(v) for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()
