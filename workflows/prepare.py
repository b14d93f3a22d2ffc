"""``aiaic prepare``: annotations and clips -> shards, built by Ray's workers or by this process."""

from collections.abc import Iterable, Iterator, Sequence

from tqdm import tqdm

from data_prep import build, catalog, exclusions, plan, publication, records, storage
from data_prep.catalog import Catalog
from data_prep.manifest import Manifest
from data_prep.plan import BuildSettings, PlannedShard
from data_prep.quality import Filters
from data_prep.records import ShardRecord
from data_prep.sample import MediaSettings
from workflows import verify
from workflows.commands import Outcome, Prepare, flat


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
    if planned:
        from workflows import cluster, shard_builders  # noqa: PLC0415 (needed for this alone)

        with cluster.connected(cpus=workers):
            yield from shard_builders.build_shards(planned, settings, out, workers)


def _shown(
    building: Iterable[ShardRecord], planned: Sequence[PlannedShard]
) -> Iterator[ShardRecord]:
    total = sum(len(shard.clips) for shard in planned)
    with tqdm(total=total, desc="prepare", unit="clip", disable=not planned) as bar:
        for record in building:
            bar.update(len(record.rows))
            yield record
