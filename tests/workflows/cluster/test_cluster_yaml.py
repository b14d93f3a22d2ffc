"""The template of a cluster on AWS, checked as ``ray up`` checks it, without a network."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[3]
TOKEN = "~/.ray/auth_token"


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    """What Ray makes of the file."""
    return prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))


def starts(cluster: dict[str, Any]) -> list[str]:
    """The commands that start Ray, on the head and on a worker."""
    found = [
        command
        for kind in ("head", "worker")
        for command in cluster[f"{kind}_start_ray_commands"]
        if "ray start" in command
    ]
    assert len(found) == 2
    return found


def test_ray_accepts_it(cluster: dict[str, Any]) -> None:
    validate_config(cluster)


def test_only_who_has_the_token_comes_in(cluster: dict[str, Any]) -> None:
    for command in starts(cluster):
        assert "RAY_AUTH_MODE=token" in command
    assert cluster["file_mounts"][TOKEN] == TOKEN  # where Ray looks for it by itself
    head, _ = starts(cluster)
    assert "--dashboard-host=127.0.0.1" in head


def test_gpus_are_on_spot_and_none_waits_idle(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    gpus = [kind for kind in types.values() if kind["node_config"]["InstanceType"][0] in "gp"]
    assert gpus
    for kind in gpus:
        assert kind["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    head = types[cluster["head_node_type"]]
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0}
    assert all(kind["min_workers"] == 0 for kind in types.values())
    assert cluster["idle_timeout_minutes"] <= 30


def test_everything_it_mounts_is_in_the_repository(cluster: dict[str, Any]) -> None:
    mounts = {there: here for there, here in cluster["file_mounts"].items() if here != TOKEN}
    for there, here in mounts.items():
        assert (ROOT / here).exists(), here
        assert there == f"~/aiaic/{Path(here)}"
    mounted = " ".join(mounts)
    for command in cluster["setup_commands"]:
        for word in command.replace(")", " ").split():
            if word.startswith("~/aiaic/"):
                assert word in mounted
    for package in ("aiaic", "data_prep", "workflows"):
        assert f"~/aiaic/{package}" in mounts


def test_versions_are_the_locked_ones(cluster: dict[str, Any]) -> None:
    installs = [line for line in cluster["setup_commands"] if "pip install" in line]
    assert len(installs) == 3
    assert all("--require-hashes" in line or "--no-deps" in line for line in installs)
