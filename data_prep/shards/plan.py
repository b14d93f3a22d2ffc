"""Assigns clips to shards, as a pure function of the catalog and the number of shards."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_prep.catalog import Clip
from data_prep.catalog.splits import shard_of
from data_prep.media.quality import Filters
from data_prep.media.sample import MediaSettings
from data_prep.shards.manifest import load_manifest


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """Configuration of a build."""

    media: MediaSettings = field(default_factory=MediaSettings)
    """What to take from each clip."""
    filters: Filters = field(default_factory=Filters)
    """Which clips are good enough."""
    shards: int | None = None
    """Number of shards; None: as in the last build there, else by ``clips_per_shard``."""
    clips_per_shard: int = 128
    """Approximate number of clips in a shard, if the number of shards is not given."""
    max_rejected_share: float = 0.2
    """A build that rejects more than this share of its clips fails; clips left out on purpose do
    not count."""

    def __post_init__(self) -> None:
        if self.shards is not None and self.shards < 1:
            raise ValueError(f"shards is {self.shards}: give at least 1")
        if self.clips_per_shard < 1:
            raise ValueError(f"clips_per_shard is {self.clips_per_shard}: give at least 1")
        if not 0.0 <= self.max_rejected_share <= 1.0:
            raise ValueError(f"max_rejected_share is {self.max_rejected_share}: give 0 to 1")
        if self.filters.min_motion is not None and not self.media.measure_motion:
            raise ValueError("min_motion is set, but media.measure_motion is not: set both")


@dataclass(frozen=True, kw_only=True)
class PlannedShard:
    """A shard to build, picklable; with settings and output folder it is all a worker needs."""

    index: int
    shard_count: int
    clips: tuple[Clip, ...]
    """In the order of their keys."""


def choose_shard_count(clips: int, settings: BuildSettings, out: str) -> int:
    """Number of shards: as set, else as in the last build in ``out``, else by the number of clips.

    An earlier number is kept, so that new rows change only their own shards.
    """
    if settings.shards is not None:
        return settings.shards
    try:
        return load_manifest(out).shard_count
    except (FileNotFoundError, ValueError):
        return max(1, round(clips / settings.clips_per_shard))


def plan(clips: Sequence[Clip], shard_count: int) -> tuple[PlannedShard, ...]:
    """The shards that are not empty, in order; all clips of a video are in the same one.

    The order of the clips does not matter.

    Raises:
        ValueError: two clips have the same key.
    """
    twice = [key for key, n in Counter(clip.key for clip in clips).items() if n > 1]
    if twice:
        raise ValueError(f"clip {twice[0]} is in the catalog twice: keep one")
    members: defaultdict[int, list[Clip]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip.key):
        members[shard_of(clip.youtube_id, shard_count)].append(clip)
    return tuple(
        PlannedShard(index=index, shard_count=shard_count, clips=tuple(members[index]))
        for index in sorted(members)
    )
