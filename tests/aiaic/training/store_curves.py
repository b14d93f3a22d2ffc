"""Stores the curves that ``test_training.py`` compares with; run it when they change on purpose."""

import json
import tempfile
from pathlib import Path

from test_training import CURVES, train

from aiaic.checkpointing import checkpoint

with tempfile.TemporaryDirectory() as folder:
    last: dict[int, Path] = {}
    for stage in (1, 2, 3):
        last[stage] = train(Path(folder) / f"stage{stage}", stage, last.get(stage - 1))
    curves = {stage: checkpoint.read_record(path).curves for stage, path in last.items()}
CURVES.write_text(json.dumps(curves, indent=1) + "\n")
