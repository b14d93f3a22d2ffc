"""Jobs on a real Ray cluster that asks for a token; refusals."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from workflows import cli

ROOT = Path(__file__).parents[3]
TOKEN = "0123456789abcdef0123456789abcdef"
_PORTS = (
    "--port",
    "--dashboard-port",
    "--ray-client-server-port",
    "--node-manager-port",
    "--object-manager-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--runtime-env-agent-port",
    "--metrics-export-port",
)


@dataclass(frozen=True, kw_only=True)
class Head:
    """A cluster of one machine that asks for a token."""

    address: str
    environment: dict[str, str]
    """What a process needs in order to be let in."""

    def get(self, path: str, token: str | None) -> Any:
        """The Job API's answer to a plain request."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"{self.address}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    @contextlib.contextmanager
    def submit(self, *words: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
        """``aiaic submit`` as a process of its own: Ray reads its token once in a process."""
        with subprocess.Popen(
            [sys.executable, "-m", "workflows.cli", "submit", "--address", self.address, *words],
            env=self.environment | environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def read_until(process: "subprocess.Popen[str]", line: str) -> None:
    """Read what the process writes, up to a line; Ray's own words stand before the job's."""
    assert process.stdout is not None
    assert line in iter(process.stdout.readline, "")


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """``ray start --head`` with ports and folders of its own."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # sockets need a short path
    (folder / "token").write_text(TOKEN)
    ports = _free_ports(len(_PORTS))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
        "TMPDIR": str(folder),  # the dashboard's processes have sockets there
        "PYTHONUNBUFFERED": "",  # following is to flush by itself
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    command = [
        str(Path(sys.executable).with_name("ray")),
        *("start", "--head", "--block", "--num-cpus=1", "--disable-usage-stats"),
        *("--object-store-memory=80000000", f"--temp-dir={folder}"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"),
        *(f"{flag}={port}" for flag, port in zip(_PORTS, ports, strict=True)),
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{ports[1]}"
    try:
        found = Head(address=address, environment=environment)
        _await_answer(found, process, folder / "log")
        yield found
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def _await_answer(head: Head, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError):
            head.get("/api/jobs/", TOKEN)
            return
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the cluster: every process of its own session, and no other."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(120)
    for pid in _session(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _session(leader: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                found.append(int(folder.name))
    return found


@pytest.mark.ray
def test_the_log_is_followed_while_the_job_runs(head: Head, tmp_path: Path) -> None:
    waits = (
        "import os, sys, time\n"
        "print('ready', flush=True)\n"
        "while not os.path.exists(sys.argv[1]): time.sleep(0.1)\n"
        "print('done')\n"
    )
    with head.submit("--", sys.executable, "-c", waits, str(tmp_path / "continue")) as process:
        read_until(process, "ready\n")
        (tmp_path / "continue").touch()
        out, err = process.communicate(timeout=120)
    assert out == "done\n"
    assert process.returncode == 0, err
    assert TOKEN not in err


@pytest.mark.ray
def test_exit_code_and_folder_of_a_job(head: Head, tmp_path: Path) -> None:
    """The folder's modules are there for the job and for the workers that it starts."""
    (tmp_path / "mine.py").write_text("WORD = 'hello'\n")
    code = (
        "import mine, ray, sys\n"
        "ray.init()\n"
        "def word():\n"
        "    import mine\n"
        "    return mine.WORD\n"
        "print(mine.WORD, 'and', ray.get(ray.remote(word).remote()))\n"
        "sys.exit(3)\n"
    )
    options = ("--json", "--working-dir", str(tmp_path))
    with head.submit(*options, "--", sys.executable, "-c", code) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert "hello and hello" in err
    result = json.loads(out)
    assert result | {"job": ""} == {
        "job": "",
        "address": head.address,
        "status": "FAILED",
        "exit_code": 3,
    }
    assert head.get(f"/api/jobs/{result['job']}", TOKEN)["driver_exit_code"] == 3


@pytest.mark.ray
def test_ctrl_c_stops_the_job(head: Head) -> None:
    with head.submit("--", "sh", "-c", "echo ready; sleep 600") as process:
        read_until(process, "ready\n")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    job = err.split()[err.split().index("job") + 1]
    assert head.get(f"/api/jobs/{job}", TOKEN)["status"] == "STOPPED"


@pytest.mark.ray
def test_the_token_is_required(head: Head) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        head.get("/api/jobs/", None)
    assert refused.value.code == 401
    refused.value.close()
    strangers = [{"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "f" * 32}]
    before = len(head.get("/api/jobs/", TOKEN))
    for environment in strangers:
        with head.submit("--", "true", **environment) as process:
            out, err = process.communicate(timeout=120)
        assert process.returncode == 1, err
        assert out == ""
        (line,) = err.splitlines()
        assert line.startswith(f"aiaic: error: the cluster at {head.address} refused the token")
        assert "RAY_AUTH_TOKEN_PATH" in line
    assert len(head.get("/api/jobs/", TOKEN)) == before


@pytest.fixture
def closed() -> Iterator[str]:
    """An address at which nothing answers: the port is bound, but not listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("CLOSED", "ray dashboard cluster.yaml"),
        ("ftp://somewhere:8265", "ftp://somewhere:8265"),
        ("http://me:secret@somewhere:8265", "RAY_AUTH_TOKEN_PATH"),
    ],
)
def test_a_wrong_address_is_one_line(
    address: str, named: str, closed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    address = address.replace("CLOSED", closed)
    assert cli.main(["submit", "--address", address, "--", "true"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert "secret" not in line
    assert "somewhere" in line or closed in line


def test_what_must_be_there_is_named(
    tmp_path: Path,
    closed: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "absent"))
    for words, named in (
        (["--address", closed, "--", "true"], str(tmp_path / "absent")),
        (["--working-dir", str(tmp_path / "no"), "--", "true"], str(tmp_path / "no")),
        ([], "no command"),
    ):
        assert cli.main(["submit", *words]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert named in line
