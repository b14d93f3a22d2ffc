"""A trace of a few training steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

WAIT, WARMUP, ACTIVE = 5, 2, 3
"""Steps that are skipped, traced to warm up, and recorded."""


@contextmanager
def traced(folder: Path, rank: int) -> Iterator[profile]:
    """Trace steps 8 to 10 into ``folder/profile-rankN.json.gz``, for chrome://tracing or Perfetto.

    Call ``step()`` of the profiler after each step; fewer than ten steps write nothing.

    Args:
        folder: a local folder, created if necessary.
        rank: this worker's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with profile(
        activities=activities,
        schedule=schedule(wait=WAIT, warmup=WARMUP, active=ACTIVE, repeat=1),
        on_trace_ready=lambda trace: trace.export_chrome_trace(
            str(folder / f"profile-rank{rank}.json.gz")
        ),
        acc_events=True,
    ) as profiler:
        yield profiler
