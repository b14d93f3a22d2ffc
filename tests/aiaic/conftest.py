import sys
from pathlib import Path

import pytest
import torch

# Helpers beside the tests (samples, recipes) are imported by name.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random tensors whatever ran before, so that a failure can be repeated."""
    torch.manual_seed(0)
