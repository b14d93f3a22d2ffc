"""Fixtures that several suites share: media made on the spot, and real S3 servers on loopback."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import jaxtyping
import numpy as np
import pytest

# Shapes and types of all tensors are checked in tests; this must precede any import of aiaic.
jaxtyping.install_import_hook("aiaic", "beartype.beartype")

# Servers on loopback are not reached by a proxy; Ctrl-C ends even what was started in a background
# that ignores it.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "TESTACCESSKEY",
    "AWS_SECRET_ACCESS_KEY": "test-secret-key",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    # rclone answers 411 to the chunked uploads that newer checksums need.
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
}


@dataclass(frozen=True, kw_only=True)
class S3Server:
    """A real S3 server on loopback."""

    endpoint: str
    """``http://127.0.0.1:port``"""
    env: dict[str, str]
    """What a process needs in order to reach it: credentials and endpoint."""

    def new_place(self) -> str:
        """URI of a fresh, empty bucket; reaching it takes ``env``."""
        import boto3

        name = f"bucket-{uuid.uuid4().hex[:12]}"
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=self.env["AWS_REGION"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket=name)
        client.close()
        return f"s3://{name}"

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Makes this process, and those it starts, talk to it."""
        for name, value in self.env.items():
            monkeypatch.setenv(name, value)


def _program(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@contextlib.contextmanager
def _served(command: list[str]) -> Iterator[S3Server]:
    """Runs a server that chooses a free port and tells it; ends that very process and no other."""
    with (
        tempfile.NamedTemporaryFile() as told,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=told
        ) as process,
    ):
        try:
            endpoint = _told_endpoint(process, Path(told.name))
            own = {"AWS_ENDPOINT_URL_S3": endpoint}
            yield S3Server(endpoint=endpoint, env=S3_ENVIRONMENT | own)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _told_endpoint(process: "subprocess.Popen[bytes]", told: Path) -> str:
    deadline = time.monotonic() + 120
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", told.read_text())):
        assert process.poll() is None, f"{process.args} ended: {told.read_text()}"
        assert time.monotonic() < deadline, f"{process.args} does not tell its port"
        time.sleep(0.05)
    return found[0]


@pytest.fixture(scope="session")
def rclone_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """``rclone serve s3`` over a temporary folder, whose subfolders are the buckets."""
    with serve_s3(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@contextlib.contextmanager
def serve_s3(folder: Path) -> Iterator[S3Server]:
    """``rclone serve s3`` over a folder."""
    keys = "{AWS_ACCESS_KEY_ID},{AWS_SECRET_ACCESS_KEY}".format_map(S3_ENVIRONMENT)
    options = ["--auth-key", keys, "--addr", "127.0.0.1:0", "--config", ""]
    with _served([_program("rclone"), "serve", "s3", *options, str(folder)]) as server:
        yield server


@pytest.fixture(scope="session")
def moto_s3() -> Iterator[S3Server]:
    """``moto_server``: a mock that honours conditional writes."""
    with _served([_program("moto_server"), "-H", "127.0.0.1", "-p", "0"]) as server:
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


def write_clip(
    path: Path,
    *,
    seconds: float = 2.0,
    width: int = 96,
    height: int = 64,
    fps: int = 10,
    key_interval: int = 12,
    color: tuple[int, int, int] | None = None,
    tone_hz: float | None = 440.0,
    loudness: float = 0.3,
    sound_s: float | None = None,
    sound_rate_hz: int = 44100,
    layout: str = "stereo",
    video: bool = True,
    codec: str = "h264",
    pixel_format: str = "yuv420p",
    video_options: dict[str, str] | None = None,
    edit: Callable[[np.ndarray, int], np.ndarray] = lambda image, number: image,
) -> Path:
    """Writes a clip whose frames show their own number: bit k of it is the k-th of eight bars.

    With ``color`` the frames are of that one RGB colour instead; ``edit`` changes each picture.
    ``tone_hz=None``: no sound stream.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        streams = []
        if video:
            options = {"preset": "ultrafast", "bf": "2"} | (video_options or {})
            stream = container.add_stream(
                codec, rate=fps, options=options if codec == "h264" else {}
            )
            stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
            stream.gop_size = key_interval
            stream.time_base = Fraction(1, fps)
            streams.append((stream, _frames(round(seconds * fps), width, height, color, edit)))
        if tone_hz is not None:
            sound = container.add_stream("aac", rate=sound_rate_hz, layout=layout)
            length_s = seconds if sound_s is None else sound_s
            streams.append((sound, _tone(tone_hz, loudness, length_s, sound_rate_hz, layout)))
        for stream, frames in streams:
            for frame in frames:
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


def _frames(
    count: int,
    width: int,
    height: int,
    color: tuple[int, int, int] | None,
    edit: Callable[[np.ndarray, int], np.ndarray],
) -> Iterator[av.VideoFrame]:
    for number in range(count):
        image = np.zeros((height, width, 3), np.uint8)
        for bit in range(8):
            left, right = bit * width // 8, (bit + 1) * width // 8
            image[:, left:right] = 230 if number >> bit & 1 else 25
        if color is not None:
            image[:] = color
        frame = av.VideoFrame.from_ndarray(edit(image, number), format="rgb24")
        frame.pts = number
        yield frame


def _tone(
    tone_hz: float, loudness: float, seconds: float, rate_hz: int, layout: str
) -> Iterator[av.AudioFrame]:
    channels = av.AudioLayout(layout).nb_channels
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    wave = (loudness * np.sin(2 * np.pi * tone_hz * times)).astype(np.float32)
    for first in range(0, len(wave), 1024):
        part = np.ascontiguousarray(np.tile(wave[None, first : first + 1024], (channels, 1)))
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, first
        frame.time_base = Fraction(1, rate_hz)
        yield frame


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Path]:
    """``write_clip``: makes an MP4 clip on the spot."""
    return write_clip
