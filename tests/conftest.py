"""Fixtures that several suites share: clips made on the spot, and real S3 servers on loopback."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import pytest

from fault_injection.clips import write_clip
from fault_injection.s3_servers import S3Server, serve_moto, serve_s3

# Shapes and types of all tensors are checked in tests; this must precede any import of aiaic.
jaxtyping.install_import_hook("aiaic", "beartype.beartype")

# Servers on loopback are not reached by a proxy; Ctrl-C ends even what was started in a background
# that ignores it.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def rclone_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """``rclone serve s3`` over a temporary folder, whose subfolders are the buckets."""
    with serve_s3(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[S3Server]:
    """``moto_server``: a mock that honours conditional writes."""
    with serve_moto() as server:
        yield server


@pytest.fixture(params=["rclone", "moto"])
def s3_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of a fresh bucket on each server in turn, reachable from this process."""
    server: S3Server = request.getfixturevalue(f"{request.param}_s3")
    server.use(monkeypatch)
    return server.new_place()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data: ``AIAIC_SHARED``, or ``../shared`` beside the repository."""
    folder = Path(os.environ.get("AIAIC_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real data: {folder / 'data'} is absent (set AIAIC_SHARED)")
    return folder


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Path]:
    """``write_clip``: makes an MP4 clip on the spot."""
    return write_clip
