"""Real S3 servers on loopback."""

import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

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
    """Environment variables that a client needs: credentials and endpoint."""

    def new_place(self) -> str:
        """Creates an empty bucket and returns its URI; access requires ``env``."""
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
        """Makes this process and its children use this server."""
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
    """Runs a server that chooses a free port and prints it; terminates it on exit."""
    with (
        tempfile.NamedTemporaryFile() as output,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output
        ) as process,
    ):
        try:
            endpoint = _printed_endpoint(process, Path(output.name))
            own = {"AWS_ENDPOINT_URL_S3": endpoint}
            yield S3Server(endpoint=endpoint, env=S3_ENVIRONMENT | own)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _printed_endpoint(process: "subprocess.Popen[bytes]", output: Path) -> str:
    deadline = time.monotonic() + 120
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", output.read_text())):
        assert process.poll() is None, f"{process.args} ended: {output.read_text()}"
        assert time.monotonic() < deadline, f"{process.args} did not print its port"
        time.sleep(0.05)
    return found[0]


@contextlib.contextmanager
def serve_s3(folder: Path) -> Iterator[S3Server]:
    """``rclone serve s3`` over a folder."""
    keys = "{AWS_ACCESS_KEY_ID},{AWS_SECRET_ACCESS_KEY}".format_map(S3_ENVIRONMENT)
    options = ["--auth-key", keys, "--addr", "127.0.0.1:0", "--config", ""]
    with _served([_program("rclone"), "serve", "s3", *options, str(folder)]) as server:
        yield server


@contextlib.contextmanager
def serve_moto() -> Iterator[S3Server]:
    """``moto_server``: a mock that honours conditional writes."""
    with _served([_program("moto_server"), "-H", "127.0.0.1", "-p", "0"]) as server:
        yield server
