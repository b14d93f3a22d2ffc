"""Client of the Ray Job API: submits a command, follows its log, stops it."""

import asyncio
import contextlib
import dataclasses
import logging
import os
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

from workflows.cluster import environment, ray_internals

log = logging.getLogger(__name__)

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
"""Where 'ray dashboard cluster.yaml' opens its tunnel."""

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_REACHED_WITHIN_S = 10
_AGENT_WITHIN_S = 60
_RECONNECTS = 8
_LONGEST_WAIT_S = 30
_SAVED_WITHIN_S = 600
_STOPPED_WITHIN_S = 15
_POLL_EVERY_S = 0.5
_LOST = (OSError, RuntimeError, aiohttp.ClientError)
"""Raised while the connection to the cluster is lost."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobEnd:
    """How a job ended."""

    status: str
    """SUCCEEDED, FAILED or STOPPED."""
    exit_code: int
    """As a shell would report it; 1 for a job that never ran."""
    message: str
    """Why it never ran; empty otherwise."""


class JobClient:
    """The Job API of one cluster.

    Args:
        client: Ray's.
        address: URL of the cluster's dashboard.
    """

    def __init__(self, client: JobSubmissionClient, address: str) -> None:
        self._client, self.address = client, address

    @classmethod
    def connect(cls, address: str) -> "JobClient":
        """Connect to a cluster; a token comes from Ray's own variables.

        Raises:
            ConnectionError: no Job API answers there.
            PermissionError: the cluster refuses the token.
            FileNotFoundError, ValueError: there is no token where RAY_AUTH_TOKEN_PATH says.
        """
        _check_token(address)
        if not log.isEnabledFor(logging.DEBUG):
            ray_internals.quiet_job_client()
        try:
            _probe(address)
            # Ray prefers its variable to the address that it is given.
            with environment.overridden(ray_internals.JOB_ADDRESS, address):
                return cls(JobSubmissionClient(address), address)
        except AuthenticationError as error:
            raise _refused(address) from error
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise ConnectionError(
                f"no Ray Job API at {address} ({_first_line(error)}): open the tunnel with 'ray "
                f"dashboard cluster.yaml', or give --address or {ray_internals.JOB_ADDRESS}"
            ) from error

    def submit(self, job: str, command: str, runtime_env: dict[str, Any]) -> None:
        """Start a command as a job under an id of :func:`new_id`.

        Raises:
            PermissionError: the cluster refuses the token.
            ValueError: it does not accept the job.
        """
        deadline = time.monotonic() + _AGENT_WITHIN_S
        while True:
            try:
                self._client.submit_job(
                    entrypoint=command, submission_id=job, runtime_env=runtime_env
                )
                break
            except AuthenticationError as error:
                raise _refused(self.address) from error
            except (OSError, RuntimeError, ValueError) as error:
                # A cluster that has just been started answers before it can take jobs.
                if ray_internals.NO_AGENT_TEXT in str(error) and time.monotonic() < deadline:
                    time.sleep(1)
                    continue
                raise ValueError(
                    f"the cluster at {self.address} did not accept the job: {_first_line(error)}"
                ) from error
        log.info("job %s is at %s", job, self.address)

    def follow(self, job: str) -> JobEnd:
        """Write a job's log to stdout as it grows, through lost connections, until the job ends.

        Raises:
            ConnectionError: the connection is lost for good; the job continues.
        """
        try:
            details = asyncio.run(self._follow(job))
        except _LOST as error:
            raise ConnectionError(
                f"lost {self.address} ({_first_line(error)}); the job continues: follow it with "
                f"'ray job logs --follow --address {self.address} {job}'"
            ) from error
        log.info("job %s %s", job, details.status.value.lower())
        return _end(details)

    def stop(self, job: str) -> None:
        """Ask the cluster to stop a job, and wait while it saves."""
        log.info("stopping %s, which may save first; Ctrl-C again leaves at once", job)
        try:
            self._client.stop_job(job)
        except (OSError, RuntimeError) as error:
            log.warning("%s may continue: %s", job, _first_line(error))
            return
        until = time.monotonic() + _SAVED_WITHIN_S + _STOPPED_WITHIN_S
        while time.monotonic() < until:
            with contextlib.suppress(*_LOST):
                if self._client.get_job_status(job).is_terminal():
                    return
            time.sleep(_POLL_EVERY_S)
        log.warning("%s has not stopped yet", job)

    async def _follow(self, job: str) -> JobDetails:
        """Each connection sends the log from its start: what was written already is skipped."""
        written, failures = 0, 0
        while True:
            position = 0
            try:
                async for text in self._client.tail_job_logs(job):
                    fresh = text[max(0, written - position) :]
                    position += len(text)
                    if fresh:
                        sys.stdout.write(fresh)
                        sys.stdout.flush()
                        written, failures = position, 0
                details = self._client.get_job_info(job)
                if details.status.is_terminal():
                    return details
                raise ConnectionError("the log ended before the job")
            except _LOST as error:
                failures += 1
                if failures > _RECONNECTS:
                    raise
                wait_s = min(2.0**failures, _LONGEST_WAIT_S)
                log.info("log of %s: %s; reconnecting in %d s", job, _first_line(error), wait_s)
                await asyncio.sleep(wait_s)


def new_id() -> str:
    """An id for a new job."""
    return f"aiaic-{uuid.uuid4().hex[:12]}"


def resolve_address(given: str | None) -> str:
    """URL of the cluster's dashboard.

    Args:
        given: an explicit address; it takes precedence over RAY_API_SERVER_ADDRESS, and that over
            an http address in RAY_ADDRESS, which otherwise names a cluster to join.

    Raises:
        ValueError: it is no http(s) URL, or holds a secret.
    """
    joined = os.environ.get("RAY_ADDRESS", "")
    chosen = given or os.environ.get(ray_internals.JOB_ADDRESS)
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


def runtime_env(working_dir: str | None) -> dict[str, Any]:
    """Ray's runtime environment of a job.

    A job that is stopped gets time to save. Ray puts the folder on PYTHONPATH of the job and of all
    workers that it starts.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    environment = {"env_vars": {ray_internals.JOB_STOP_WAIT: str(_SAVED_WITHIN_S)}}
    if working_dir is None:
        return environment
    if not Path(working_dir).is_dir():
        raise FileNotFoundError(f"--working-dir '{working_dir}' is no folder")
    return environment | {"working_dir": str(Path(working_dir).resolve())}


def _probe(address: str) -> None:
    """Fail soon where nothing answers; Ray's client would wait for minutes."""
    try:
        urllib.request.urlopen(  # noqa: S310 (http or https, see resolve_address)
            f"{address}/api/version", timeout=_REACHED_WITHIN_S
        ).close()
    except urllib.error.HTTPError as answer:
        answer.close()  # Ray's client explains it


def _check_token(address: str) -> None:
    """Refuse a token file that Ray cannot read: it would end this process without a word."""
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


def _end(details: JobDetails) -> JobEnd:
    succeeded = details.status is JobStatus.SUCCEEDED
    never_ran = details.driver_exit_code is None and not succeeded
    return JobEnd(
        status=details.status.value,
        exit_code=0 if succeeded else _exit_code(details.driver_exit_code),
        message=_first_line(details.message) if never_ran else "",
    )


def _exit_code(driver: int | None) -> int:
    """The exit code of a job that did not succeed; 1 where it never ran."""
    if driver is None:
        return 1
    return 128 - driver if driver < 0 else driver or 1


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
