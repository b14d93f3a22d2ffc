"""``aiaic prepare``: clips -> shards, as shard-sized pieces of work that Ray Data hands out."""

import dataclasses
import functools
import json
import logging
import time
from typing import Any

import ray.data
from pydantic import TypeAdapter
from ray.data import DataContext, TaskPoolStrategy
from tqdm import tqdm

from data_prep import build, catalog
from data_prep.build import BuildSettings, PlannedShard, ShardRecord
from data_prep.catalog import Catalog, Clip
from data_prep.manifest import Manifest
from data_prep.media import MediaSettings
from workflows import checkpoints, cluster, verify
from workflows.commands import Outcome, Prepare, flat

log = logging.getLogger(__name__)

_ATTEMPTS = 3


def run(options: Prepare) -> Outcome:
    """Carry out the command."""
    found = read_catalog(options)
    settings = BuildSettings(
        media=MediaSettings(
            size_px=options.size_px,
            pictures=options.pictures,
            require_sound=options.require_sound,
        ),
        clips_per_shard=options.clips_per_shard,
        max_rejected_share=options.max_rejected_share,
    )
    built, reused = prepare(found, settings, options.out, options.workers)
    values = {"out": options.out, "reused_shards": reused} | verify.counts(built)
    standing = f" ({reused} of these stood already)" if reused else ""
    return Outcome(values=values, text=f"{options.out}: {verify.in_words(built)}{standing}")


def read_catalog(options: Prepare) -> Catalog:
    """The clips to read, by the kind of annotations.

    Raises:
        ValueError: annotations or split files are missing, too many, or malformed.
        FileNotFoundError: annotations or clips are not there.
    """
    clips, splits = checkpoints.absolute(options.clips), flat(options.splits)
    if splits and options.dataset != "ave":
        raise ValueError(f"--splits is for --dataset ave, not {options.dataset}")
    if options.dataset == "folder":
        if options.annotations is not None:
            raise ValueError("--dataset folder takes no --annotations")
        return catalog.read_folder(clips)
    if options.annotations is None:
        raise ValueError(f"--dataset {options.dataset} needs --annotations FILE")
    if options.dataset == "ave":
        return catalog.read_ave(options.annotations, splits, clips)
    return catalog.read_vggsound(options.annotations, clips)


def prepare(
    found: Catalog, settings: BuildSettings, out: str, workers: int | None = None
) -> tuple[Manifest, int]:
    """Build the shards of a catalog; those that stand already are left as they are.

    Args:
        found: the clips.
        settings: of the build.
        out: place of the shards.
        workers: shards built at the same time; None: one per processor of the cluster.

    Returns:
        The manifest, and the number of shards that stood already.

    Raises:
        ValueError: too many clips were rejected.
        OSError: a store fails again and again.
    """
    out = checkpoints.absolute(out)
    shard_count = build.choose_shard_count(len(found.clips), settings, out)
    planned = build.plan(found.clips, shard_count)
    with cluster.connected(cpus=workers):
        records = _build_on_ray(planned, settings.media, out, workers)
    reused = sum(record.reused for record in records)
    return build.publish_manifest(found, records, settings, out), reused


def _build_on_ray(
    planned: tuple[PlannedShard, ...], media: MediaSettings, out: str, workers: int | None
) -> list[ShardRecord]:
    """One row = one shard; each row is a task of its own, wherever there is a processor."""
    _tame(DataContext.get_current())
    rows = ray.data.from_items(
        [dataclasses.asdict(shard) for shard in planned], override_num_blocks=len(planned)
    )
    records = rows.map(
        functools.partial(_build_row, media, out),
        compute=TaskPoolStrategy(size=workers),
        num_cpus=1,
    )
    built: list[ShardRecord] = []
    adapter = TypeAdapter(ShardRecord)
    with tqdm(total=sum(len(s.clips) for s in planned), desc="prepare", unit="clip") as bar:
        for row in records.iter_rows():
            if row["failure"]:
                raise OSError(row["failure"])
            built.append(adapter.validate_json(row["record"]))
            bar.update(len(built[-1].rows))
    return built


def _build_row(media: MediaSettings, out: str, row: dict[str, Any]) -> dict[str, Any]:
    """One shard's record, or why it could not be stored, both as plain text."""
    clips = tuple(Clip(**clip) for clip in row["clips"])
    shard = PlannedShard(index=row["index"], shard_count=row["shard_count"], clips=clips)
    failure = ""
    for attempt in range(_ATTEMPTS):
        time.sleep(attempt)  # a store may be away for a moment
        try:
            record = build.build_shard(shard, media, out)
        except OSError as error:
            failure = f"shard {shard.index} could not be stored in '{out}': {error}"
        else:
            return {"record": json.dumps(dataclasses.asdict(record)), "failure": ""}
    return {"record": "", "failure": failure}


def _tame(context: DataContext) -> None:
    """A block that fails is never dropped; one progress bar of ours instead of Ray's."""
    context.max_errored_blocks = 0
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if not log.isEnabledFor(logging.DEBUG):
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it tells is raised as well
