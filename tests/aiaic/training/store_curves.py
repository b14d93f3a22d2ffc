"""Stores the curves that ``test_loop.py`` compares with; run it when they change on purpose:

python -m tests.aiaic.training.store_curves
"""

import json
import tempfile
from pathlib import Path

from aiaic.checkpointing import checkpoint
from tests.aiaic.training.tiny_training import train_all

CURVES = Path(__file__).with_name("curves.json")

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        last = train_all(Path(folder))
        curves = {stage: checkpoint.read_record(path).curves for stage, path in last.items()}
    CURVES.write_text(json.dumps(curves, indent=1) + "\n")
