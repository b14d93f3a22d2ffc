"""``aiaic prepare``: builds shards from clips and annotations, on Ray or in this process."""

from collections.abc import Iterable, Iterator, Sequence

from tqdm import tqdm

from aiaic import config
from data_prep import catalog, storage
from data_prep.catalog import Catalog, exclusions
from data_prep.media.quality import Filters
from data_prep.media.sample import MediaSettings
from data_prep.shards import build
from data_prep.shards.build import Built
from data_prep.shards.plan import BuildSettings, PlannedShard
from data_prep.shards.records import ShardRecord
from workflows.commands import verify
from workflows.options import Outcome, Prepare, flat


def run(options: Prepare) -> Outcome:
    """Carry out the command."""
    found = read_catalog(options)
    built = prepare(found, build_settings(options), options.out, options.workers)
    reused = built.reused_shards
    values = {"out": options.out, "reused_shards": reused} | verify.counts(built.manifest)
    unchanged = f" ({reused} of these existed already)" if reused else ""
    text = f"{options.out}: {verify.in_words(built.manifest)}{unchanged}"
    return Outcome(values=values, text=text)


def read_catalog(options: Prepare) -> Catalog:
    """The clips that the annotations name, without those on exclusion lists.

    Raises:
        ValueError: annotations, split files or lists are missing, too many, or malformed.
        FileNotFoundError: annotations, lists or clips do not exist.
    """
    found = _annotated(options)
    for place in flat(options.exclude):
        found = exclusions.exclude(found, exclusions.read_exclusions(place))
    return found


def build_settings(options: Prepare) -> BuildSettings:
    """The build settings given by the command's options."""
    settings = BuildSettings(
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
    return config.override(settings, config.parse_settings(flat(options.overrides)))


def prepare(found: Catalog, settings: BuildSettings, out: str, workers: int | None = None) -> Built:
    """Build the shards of a catalog; those that exist already are left as they are.

    Ray is started only if there is something to build.

    Args:
        found: the clips.
        settings: of the build.
        out: place of the shards.
        workers: shards decoded at the same time; None: one per processor of the cluster; 0: in
            this process, without Ray.

    Raises:
        ValueError: too many clips were rejected.
        OSError: a store or Ray fails repeatedly, or another build has published there since.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"--workers is {workers}: give 0 or more")

    def build_missing(
        missing: Sequence[PlannedShard], settings: BuildSettings, out: str
    ) -> Iterator[ShardRecord]:
        if workers == 0:
            return _shown(build.build_shards(missing, settings, out), missing)
        return _shown(_build_on_ray(missing, settings, out, workers), missing)

    return build.build_set(found, settings, storage.absolute(out), build_missing)


def _annotated(options: Prepare) -> Catalog:
    clips, splits = storage.absolute(options.clips), flat(options.splits)
    if splits and options.dataset != "ave":
        raise ValueError(f"--splits is for --dataset ave, not {options.dataset}")
    drop_leaks = not options.keep_leaks
    if options.dataset == "folder":
        if options.annotations is not None:
            raise ValueError("--dataset folder takes no --annotations")
        return catalog.read_folder(clips, drop_leaks=drop_leaks)
    if options.annotations is None:
        raise ValueError(f"--dataset {options.dataset} needs --annotations FILE")
    if options.dataset == "ave":
        return catalog.read_ave(options.annotations, splits, clips, drop_leaks=drop_leaks)
    return catalog.read_vggsound(options.annotations, clips, drop_leaks=drop_leaks)


def _build_on_ray(
    planned: Sequence[PlannedShard], settings: BuildSettings, out: str, workers: int | None
) -> Iterator[ShardRecord]:
    if planned:
        from workflows.cluster import session, shard_builders  # noqa: PLC0415 (needed for this alone)

        with session.connected(cpus=workers):
            yield from shard_builders.build_shards(planned, settings, out, workers)


def _shown(
    building: Iterable[ShardRecord], planned: Sequence[PlannedShard]
) -> Iterator[ShardRecord]:
    total = sum(len(shard.clips) for shard in planned)
    with tqdm(total=total, desc="prepare", unit="clip", disable=not planned) as bar:
        for record in building:
            bar.update(len(record.rows))
            yield record
