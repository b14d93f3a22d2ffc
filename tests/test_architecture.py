"""Which room imports which: proven in a fresh interpreter, and shown able to fail."""

import subprocess
import sys

import jaxtyping
import pytest
import torch

# Not pyarrow: pandas, which scikit-learn imports, loads it. import-linter sees our own imports.
FOREIGN = ("ray", "mlflow", "boto3", "webdataset")


def loaded_by(statement: str, names: tuple[str, ...]) -> str:
    code = f"{statement}\nimport sys\nprint([n for n in {names!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_aiaic_loads_no_cluster_and_no_store():
    statement = "import aiaic.training.loop, aiaic.evaluation.evaluator, aiaic.inference.colorizer"
    assert loaded_by(statement, FOREIGN) == "[]"


def test_data_prep_loads_no_model_and_no_cluster():
    assert loaded_by("import data_prep.shards.build, data_prep.synthetic", ("ray", "torch")) == "[]"


def test_the_bridge_loads_no_ray():
    assert loaded_by("import workflows.artifacts.samples", ("ray",)) == "[]"


def test_these_tests_can_fail():
    assert loaded_by("import boto3", FOREIGN) == "['boto3']"


def test_shapes_are_checked_in_tests():
    from aiaic import color

    with pytest.raises(jaxtyping.TypeCheckError):
        color.rgb_to_lab(torch.rand(1, 4, 8, 8))
