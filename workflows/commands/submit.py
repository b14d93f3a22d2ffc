"""``aiaic submit``: runs a command as a job of a Ray cluster, through the Ray Job API.

The job runs on the head with what the cluster has installed; nothing is sent along but the folder
given by ``--working-dir``. Its log goes to stdout as it grows, everything else to stderr. Ctrl-C
asks the cluster to stop the job and waits until it has. A connection that is lost for good stops
nothing: the job continues.
"""

import logging
import shlex

from workflows.cluster import job_submission
from workflows.cluster.job_submission import JobClient
from workflows.options import Outcome, Submit

log = logging.getLogger(__name__)


def run(options: Submit) -> Outcome:
    """Carry out the command; its exit code is the job's."""
    if not options.command:
        raise ValueError("no command to run: 'aiaic submit -- COMMAND ...'")
    runtime_env = job_submission.runtime_env(options.working_dir)
    client = JobClient.connect(job_submission.resolve_address(options.address))
    job = job_submission.new_id()
    try:
        client.submit(job, shlex.join(options.command), runtime_env)
        end = client.follow(job)
    except KeyboardInterrupt:
        client.stop(job)
        raise
    if end.message:
        log.error("%s", end.message)
    values = {
        "job": job,
        "address": client.address,
        "status": end.status,
        "exit_code": end.exit_code,
    }
    return Outcome(values=values, text="", exit_code=end.exit_code)
