import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random tensors whatever ran before, so that a failure can be repeated."""
    torch.manual_seed(0)
