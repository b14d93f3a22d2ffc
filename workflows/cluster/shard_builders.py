"""Builds shards on workers of Ray Data: one row is one shard."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from data_prep.catalog import Clip
from data_prep.media.isolated_decoder import Decoder
from data_prep.shards import build, records
from data_prep.shards.plan import BuildSettings, PlannedShard
from data_prep.shards.records import ShardRecord
from workflows.cluster import session

log = logging.getLogger(__name__)


class ShardBuilder:
    """State of one worker: a decoder for the shards that it builds, two at a time."""

    def __init__(self, settings: BuildSettings, out: str) -> None:
        self.settings = settings
        self.out = out
        self.decoder = Decoder(settings.media)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """One shard's record, or the reason why it could not be stored, as plain text."""
        clips = tuple(Clip(**clip) for clip in row["clips"])
        shard = PlannedShard(index=row["index"], shard_count=row["shard_count"], clips=clips)
        try:
            record = build.build_shard(shard, self.settings, self.out, self.decoder)
        except OSError as error:
            failure = f"shard {shard.index} could not be built in '{self.out}': {error}"
            return {"record": b"", "failure": failure}
        return {"record": records.encode(record), "failure": ""}


def build_shards(
    planned: Sequence[PlannedShard], settings: BuildSettings, out: str, workers: int | None
) -> Iterator[ShardRecord]:
    """Yield the records of shards as they are finished by workers of Ray Data.

    A worker that dies is replaced, and its shards are built again.

    Args:
        planned: the shards.
        settings: of the build.
        out: place of the shards.
        workers: processors that build one shard after another; None: all, including those of
            machines that the cluster adds later.

    Raises:
        OSError: a store or Ray fails.
    """
    _configure(DataContext.get_current())
    least = min(workers or max(session.cpus(), 1), len(planned))
    most = least if workers else len(planned)
    rows = ray.data.from_items(
        [dataclasses.asdict(shard) for shard in planned], override_num_blocks=len(planned)
    ).map(
        ShardBuilder,  # pyright: ignore[reportArgumentType] (Ray constructs it)
        fn_constructor_args=(settings, out),
        compute=ActorPoolStrategy(
            min_size=least,
            max_size=most,
            max_tasks_in_flight_per_actor=build.SHARDS_AT_ONCE,
            max_concurrent_calls_per_actor=build.SHARDS_AT_ONCE,
            enable_true_multi_threading=True,
        ),
        num_cpus=1,
    )
    try:
        for row in rows.iter_rows():
            if row["failure"]:
                raise OSError(row["failure"])
            yield records.decode(row["record"])
    except RayError as error:
        first = str(error).strip().partition("\n")[0]
        raise OSError(
            f"Ray failed while building '{out}' ({first}): rerun the command to continue"
        ) from error


def _configure(context: Any) -> None:
    """Never drop a block that fails; show our progress bar instead of Ray's."""
    context.max_errored_blocks = 0
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if not log.isEnabledFor(logging.DEBUG):
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its errors are raised as well
