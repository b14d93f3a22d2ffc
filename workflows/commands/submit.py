"""``aiaic submit``: a command as a job of a Ray cluster, through the Ray Job API.

The job runs on the head, with what the cluster has installed; nothing of this machine goes along
but the folder that ``--working-dir`` names. Its log goes to stdout as it grows, all else to stderr.
Ctrl-C asks the cluster to stop the job and waits until it has. A connection that is lost for good
stops nothing: the job goes on.
"""

import asyncio
import contextlib
import logging
import os
import shlex
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from workflows.cluster import environment
from workflows.options import Outcome, Submit

log = logging.getLogger(__name__)

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
"""Where 'ray dashboard cluster.yaml' opens its tunnel."""

_ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_REACH_S = 10
_AGENT_S = 60
_RECONNECTS = 8
_LONGEST_WAIT_S = 30
_SAVE_WITHIN_S = 600
_STOP_S = 15
_LOST = (OSError, RuntimeError, aiohttp.ClientError)


def run(options: Submit) -> Outcome:
    """Carry out the command; its exit code is the job's."""
    if not options.command:
        raise ValueError("no command to run: 'aiaic submit -- COMMAND ...'")
    runtime_env = _runtime_env(options.working_dir)
    address = resolve_address(options.address)
    client = _connect(address)
    job = f"aiaic-{uuid.uuid4().hex[:12]}"
    try:
        _submit(client, address, job, shlex.join(options.command), runtime_env)
        details = asyncio.run(_follow_or_tell(client, address, job))
    except KeyboardInterrupt:
        _stop(client, job)
        raise
    return _outcome(address, job, details)


def resolve_address(given: str | None) -> str:
    """URL of the cluster's dashboard.

    Args:
        given: what ``--address`` says; it goes before RAY_API_SERVER_ADDRESS, and that before an
            http address in RAY_ADDRESS, which otherwise names a cluster to join.

    Raises:
        ValueError: it is no http(s) URL, or holds a secret.
    """
    joined = os.environ.get("RAY_ADDRESS", "")
    chosen = given or os.environ.get(_ADDRESS_VARIABLE)
    chosen = chosen or (joined if joined.startswith(("http://", "https://")) else DEFAULT_ADDRESS)
    address = (chosen if "://" in chosen else f"http://{chosen}").rstrip("/")
    parts = urlsplit(address)
    if "@" in parts.netloc:
        raise ValueError(
            f"the address of {parts.hostname} holds a user or password: give the cluster's token "
            "by RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH instead"
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"'{address}' is no address of a dashboard, such as {DEFAULT_ADDRESS}")
    return address


def _connect(address: str) -> JobSubmissionClient:
    _check_token(address)
    if not log.isEnabledFor(logging.DEBUG):
        for chatty in ("dashboard_sdk", "job.sdk"):
            logging.getLogger(f"ray.dashboard.modules.{chatty}").setLevel(logging.WARNING)
    try:
        _knock(address)
        # Ray prefers its variable to the address that it is given: ours stands there meanwhile.
        with environment.holding(_ADDRESS_VARIABLE, address):
            return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise _refused(address) from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ConnectionError(
            f"no Ray Job API at {address} ({_first_line(error)}): open the tunnel with "
            f"'ray dashboard cluster.yaml', or give --address or {_ADDRESS_VARIABLE}"
        ) from error


def _knock(address: str) -> None:
    """Ray's client waits for minutes where nothing answers; this gives up soon."""
    try:
        urllib.request.urlopen(f"{address}/api/version", timeout=_REACH_S).close()  # noqa: S310
    except urllib.error.HTTPError as answer:
        answer.close()  # Ray's client says what it means


def _submit(
    client: JobSubmissionClient, address: str, job: str, command: str, runtime_env: dict[str, Any]
) -> None:
    deadline = time.monotonic() + _AGENT_S
    while True:
        try:
            client.submit_job(entrypoint=command, submission_id=job, runtime_env=runtime_env)
            break
        except AuthenticationError as error:
            raise _refused(address) from error
        except (OSError, RuntimeError, ValueError) as error:
            # A cluster that has just been started answers before it can take jobs.
            if "No available agent" in str(error) and time.monotonic() < deadline:
                time.sleep(1)
                continue
            raise ValueError(
                f"the cluster at {address} did not take the job: {_first_line(error)}"
            ) from error
    log.info("job %s is at %s", job, address)


async def _follow_or_tell(client: JobSubmissionClient, address: str, job: str) -> JobDetails:
    try:
        return await _follow(client, job)
    except _LOST as error:
        raise ConnectionError(
            f"lost {address} ({_first_line(error)}); the job goes on: follow it with "
            f"'ray job logs --follow --address {address} {job}'"
        ) from error


def _check_token(address: str) -> None:
    """What Ray does not say: that it ends the process where the token's file cannot be read."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if path and not os.environ.get("RAY_AUTH_TOKEN"):
        if not Path(path).is_file():
            raise FileNotFoundError(f"no token: RAY_AUTH_TOKEN_PATH='{path}' is no file")
        if not Path(path).read_text().strip():
            raise ValueError(f"no token: RAY_AUTH_TOKEN_PATH='{path}' is empty")
    parts = urlsplit(address)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        log.warning("the token goes to %s unencrypted: a tunnel is safer", parts.hostname)


def _refused(address: str) -> PermissionError:
    return PermissionError(
        f"the cluster at {address} refused the token: set RAY_AUTH_MODE=token and "
        "RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN) to the cluster's own"
    )


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _runtime_env(working_dir: str | None) -> dict[str, Any]:
    """The job's folder. Ray puts it on PYTHONPATH, of the job and of the workers it starts.

    A job that is stopped has the time to save: Ray's own 3 s are too few.
    """
    environment = {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_SAVE_WITHIN_S)}}
    if working_dir is None:
        return environment
    if not Path(working_dir).is_dir():
        raise FileNotFoundError(f"--working-dir '{working_dir}' is no folder")
    return environment | {"working_dir": str(Path(working_dir).resolve())}


async def _follow(client: JobSubmissionClient, job: str) -> JobDetails:
    """Write the job's log to stdout as it grows, through lost connections, until the job ends.

    Each connection sends the log from its beginning: what was written already is left out.
    """
    written, failures = 0, 0
    while True:
        position = 0
        try:
            async for text in client.tail_job_logs(job):
                fresh = text[max(0, written - position) :]
                position += len(text)
                if fresh:
                    sys.stdout.write(fresh)
                    sys.stdout.flush()
                    written, failures = position, 0
            details = client.get_job_info(job)
            if details.status.is_terminal():
                return details
            raise ConnectionError("the log ended before the job")
        except _LOST as error:
            failures += 1
            if failures > _RECONNECTS:
                raise
            wait_s = min(2.0**failures, _LONGEST_WAIT_S)
            log.info("log of %s: %s; again in %d s", job, _first_line(error), wait_s)
            await asyncio.sleep(wait_s)


def _stop(client: JobSubmissionClient, job: str) -> None:
    """Ask the cluster to stop the job, and wait while it saves."""
    log.info("stopping %s, which may save first; Ctrl-C again leaves at once", job)
    try:
        client.stop_job(job)
    except (OSError, RuntimeError) as error:
        log.warning("%s may go on: %s", job, _first_line(error))
        return
    until = time.monotonic() + _SAVE_WITHIN_S + _STOP_S
    while time.monotonic() < until:
        with contextlib.suppress(*_LOST):  # the next look may have better luck
            if client.get_job_status(job).is_terminal():
                return
        time.sleep(0.5)
    log.warning("%s has not stopped yet", job)


def _outcome(address: str, job: str, details: JobDetails) -> Outcome:
    succeeded = details.status is JobStatus.SUCCEEDED
    exit_code = 0 if succeeded else _exit_code(details.driver_exit_code)
    log.info("job %s %s", job, details.status.value.lower())
    if details.driver_exit_code is None and not succeeded:
        log.error("%s", _first_line(details.message))
    return Outcome(
        values={
            "job": job,
            "address": address,
            "status": details.status.value,
            "exit_code": exit_code,
        },
        text="",
        exit_code=exit_code,
    )


def _exit_code(driver: int | None) -> int:
    """What a shell would say of a job that did not succeed; 1 where it never began to run."""
    if driver is None:
        return 1
    return 128 - driver if driver < 0 else driver or 1
