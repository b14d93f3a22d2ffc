from pathlib import Path

import pytest

from tests.aiaic.training.tiny_training import train_all


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The last checkpoint of each stage, trained one after the other."""
    return train_all(tmp_path_factory.mktemp("run"))
