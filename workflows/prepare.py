"""``aiaic prepare``: clips -> shards, as shard-sized pieces of work that Ray Data hands out."""

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tqdm import tqdm

from data_prep import build, catalog, exclusions, plan, publication, records, storage
from data_prep.catalog import Catalog, Clip
from data_prep.decoder import Decoder
from data_prep.manifest import Manifest
from data_prep.plan import BuildSettings, PlannedShard
from data_prep.quality import Filters
from data_prep.records import ShardRecord
from data_prep.sample import MediaSettings
from workflows import verify
from workflows.commands import Outcome, Prepare, flat

log = logging.getLogger(__name__)


def run(options: Prepare) -> Outcome:
    """Carry out the command."""
    found = read_catalog(options)
    built, reused = prepare(found, build_settings(options), options.out, options.workers)
    values = {"out": options.out, "reused_shards": reused} | verify.counts(built)
    standing = f" ({reused} of these stood already)" if reused else ""
    return Outcome(values=values, text=f"{options.out}: {verify.in_words(built)}{standing}")


def read_catalog(options: Prepare) -> Catalog:
    """The clips to read, by the kind of annotations, without those on exclusion lists.

    Raises:
        ValueError: annotations, split files or lists are missing, too many, or malformed.
        FileNotFoundError: annotations, lists or clips are not there.
    """
    found = _annotated(options)
    for place in flat(options.exclude):
        found = exclusions.exclude(found, exclusions.read_exclusions(place))
    return found


def build_settings(options: Prepare) -> BuildSettings:
    """The configuration that the command's options ask for."""
    return BuildSettings(
        media=MediaSettings(
            size_px=options.size_px,
            pictures=options.pictures,
            frames=options.frames,
            sound_s=options.sound_s,
            cut_letterbox=options.cut_letterbox,
            measure_motion=options.min_motion is not None,
        ),
        filters=Filters(
            require_sound=options.require_sound,
            min_colorfulness=options.min_colorfulness,
            min_motion=options.min_motion,
        ),
        clips_per_shard=options.clips_per_shard,
        max_rejected_share=options.max_rejected_share,
    )


def prepare(
    found: Catalog, settings: BuildSettings, out: str, workers: int | None = None
) -> tuple[Manifest, int]:
    """Build the shards of a catalog; those that stand already are left as they are.

    Ray is started only if there is something to build.

    Args:
        found: the clips.
        settings: of the build.
        out: place of the shards.
        workers: shards decoded at the same time; None: one per processor of the cluster; 0: in
            this process, without Ray.

    Returns:
        The manifest, and the number of shards that stood already.

    Raises:
        ValueError: too many clips were rejected.
        OSError: a store fails again and again, or another build has published there meanwhile.
    """
    out = storage.absolute(out)
    expected = publication.standing_manifest(out)
    planned = plan.plan(found.clips, plan.choose_shard_count(len(found.clips), settings, out))
    standing = records.find_standing(planned, settings, out)
    missing = [shard for shard in planned if shard.index not in standing]
    if workers == 0:
        building = build.build_shards(missing, settings, out)
    else:
        building = _build_on_ray(missing, settings, out, workers)
    built = [*standing.values(), *_shown(building, missing)]
    manifest = publication.publish_manifest(found, built, settings, out, expected=expected)
    return manifest, len(standing)


class ShardBuilder:
    """What a worker of Ray keeps: one decoder, for the shards that it builds two at a time."""

    def __init__(self, settings: BuildSettings, out: str) -> None:
        self.settings = settings
        self.out = out
        self.decoder = Decoder(settings.media)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """One shard's record, or why it could not be stored, both as plain text."""
        clips = tuple(Clip(**clip) for clip in row["clips"])
        shard = PlannedShard(index=row["index"], shard_count=row["shard_count"], clips=clips)
        try:
            record = build.build_shard(shard, self.settings, self.out, self.decoder)
        except OSError as error:
            failure = f"shard {shard.index} could not be built in '{self.out}': {error}"
            return {"record": b"", "failure": failure}
        return {"record": records.encode(record), "failure": ""}


def _annotated(options: Prepare) -> Catalog:
    clips, splits = storage.absolute(options.clips), flat(options.splits)
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


def _build_on_ray(
    planned: Sequence[PlannedShard], settings: BuildSettings, out: str, workers: int | None
) -> Iterator[ShardRecord]:
    """One row = one shard; a worker takes the next wherever there is a processor."""
    if not planned:
        return
    import ray.data
    from ray.data import ActorPoolStrategy

    from workflows import cluster

    with cluster.connected(cpus=workers):
        _tame(ray.data.DataContext.get_current())
        size = min(workers or cluster.cpus(), len(planned))
        rows = ray.data.from_items(
            [dataclasses.asdict(shard) for shard in planned], override_num_blocks=len(planned)
        ).map(
            ShardBuilder,  # pyright: ignore[reportArgumentType] (Ray makes it itself)
            fn_constructor_args=(settings, out),
            compute=ActorPoolStrategy(
                size=size,
                max_tasks_in_flight_per_actor=build.SHARDS_AT_ONCE,
                max_concurrent_calls_per_actor=build.SHARDS_AT_ONCE,
                enable_true_multi_threading=True,
            ),
            num_cpus=1,
        )
        for row in rows.iter_rows():
            if row["failure"]:
                raise OSError(row["failure"])
            yield records.decode(row["record"])


def _shown(
    building: Iterable[ShardRecord], planned: Sequence[PlannedShard]
) -> Iterator[ShardRecord]:
    total = sum(len(shard.clips) for shard in planned)
    with tqdm(total=total, desc="prepare", unit="clip", disable=not planned) as bar:
        for record in building:
            bar.update(len(record.rows))
            yield record


def _tame(context: Any) -> None:
    """A block that fails is never dropped; one progress bar of ours instead of Ray's."""
    context.max_errored_blocks = 0
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if not log.isEnabledFor(logging.DEBUG):
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what it tells is raised as well
