"""What a build takes on paper: one function per resource, each saying how long it alone would take.

The slowest of those that work side by side is the limit; what only the driver does is added.
"""

from dataclasses import dataclass

GBIT = 1e9 / 8
PAGE_KEYS = 1000
"""Keys in one answer to a listing."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A build, a cluster and a store. Times in seconds, sizes in bytes."""

    clips: int = 200_000
    clips_per_shard: int = 128
    nodes: int = 20
    cores_per_node: int = 16
    source_bytes: float = 1.0e6
    pictures: int = 1
    picture_bytes: float = 26e3
    sound_bytes: float = 320e3
    decode_s: float = 0.020
    """Of one core, for a clip: decoding and encoding, in the decoder's process."""
    decode_spread: float = 0.3
    """Standard deviation of its logarithm over the clips."""
    handle_s: float = 0.003
    """Of one core, for a clip, in the worker's process: reading, 1 MB to the decoder's process,
    0.35 MB back, into the tars."""
    publish_s: float = 0.10
    """Of one core, for a shard: checksums and sending."""

    readers: int = 4
    """Requests for clips that a worker has under way at most."""
    ahead_clips: int = 8
    ahead_bytes: float = 64 << 20
    shards_at_once: int = 2
    attempts: int = 8
    first_wait_s: float = 0.2
    longest_wait_s: float = 10.0

    node_bytes_per_s: float = 25 * GBIT
    """Each way."""
    connection_bytes_per_s: float = 85e6
    first_byte_s: float = 0.050
    """Median of the time to the first byte."""
    first_byte_spread: float = 0.5
    """Standard deviation of its logarithm."""
    prefixes: int = 1
    """Parts of the key space, each with its own rates, over which the clips are spread."""
    gets_per_s: float = 5500.0
    puts_per_s: float = 3500.0
    burst_s: float = 0.1
    """Requests over the rate that pass after idle time, in seconds of the rate."""

    list_page_s: float = 0.15
    list_key_s: float = 34e-6
    """Of the driver's core, for a listed clip."""
    plan_key_s: float = 38e-6
    """Of the driver's core, for a clip: its row of the annotations and its place in the plan."""
    dispatch_s: float = 0.010
    """Of the driver, for a shard: sent to a worker, its record received and decoded."""
    publish_clip_s: float = 48e-6
    """Of the driver's core, for a clip: manifest and index."""
    standing_shard_s: float = 0.0084
    """Of the driver's core, for a finished shard: its record read, decoded and compared."""
    record_readers: int = 16
    record_bytes: float = 92e3
    start_s: float = 25.0
    """Until all workers are up: Ray, then as many processes as cores on each node."""

    @property
    def shards(self) -> int:
        return max(1, round(self.clips / self.clips_per_shard))

    @property
    def workers(self) -> int:
        return min(self.nodes * self.cores_per_node, self.shards)

    @property
    def shard_bytes(self) -> tuple[float, float]:
        """Of the picture tar and the sound tar."""
        per_shard = self.clips / self.shards
        return per_shard * self.pictures * (self.picture_bytes + 1e3), per_shard * (
            self.sound_bytes + 1e3
        )


def processor_s(s: Setup) -> float:
    """All cores busy all the time."""
    work_s = s.clips * (s.decode_s + s.handle_s) + s.shards * s.publish_s
    return work_s / (s.nodes * s.cores_per_node)


def rounds_s(s: Setup) -> float:
    """Whole shards in turn: the last round is as long as the others, however few take part."""
    rounds = -(-s.shards // s.workers)
    return rounds * (s.decode_s + s.handle_s) * s.clips / s.shards


def network_in_s(s: Setup) -> float:
    return s.clips * s.source_bytes / (s.nodes * s.node_bytes_per_s)


def network_out_s(s: Setup) -> float:
    return s.shards * sum(s.shard_bytes) / (s.nodes * s.node_bytes_per_s)


def get_rate_s(s: Setup) -> float:
    """A GET for each clip; those for records and the HEADs lie under another prefix."""
    return s.clips / (s.gets_per_s * s.prefixes)


def put_rate_s(s: Setup) -> float:
    """Two tars and a record for each shard."""
    return 3 * s.shards / s.puts_per_s


def readers_s(s: Setup) -> float:
    """Waiting for answers: each worker has only so many requests under way."""
    mean_s = s.first_byte_s * (1 + s.first_byte_spread**2 / 2)
    per_request_s = mean_s + s.source_bytes / s.connection_bytes_per_s
    return s.clips * per_request_s / (s.workers * s.readers)


def dispatch_s(s: Setup) -> float:
    return s.shards * s.dispatch_s


def listing_s(s: Setup) -> float:
    """Of the clips: page after page, then their names are taken apart."""
    return s.clips / PAGE_KEYS * s.list_page_s + s.clips * s.list_key_s


def planning_s(s: Setup) -> float:
    return s.clips * s.plan_key_s


def manifest_s(s: Setup) -> float:
    return s.clips * s.publish_clip_s


def standing_s(s: Setup) -> float:
    """A repeated build: two listings, and the records of all shards, which all stand."""
    pages = 3 * s.shards / PAGE_KEYS * s.list_page_s
    asked = s.shards * s.first_byte_s / s.record_readers
    return pages + max(asked, s.shards * s.standing_shard_s)


BESIDE = {
    "processor": processor_s,
    "whole_shards": rounds_s,
    "network_in": network_in_s,
    "network_out": network_out_s,
    "get_rate": get_rate_s,
    "put_rate": put_rate_s,
    "readers": readers_s,
    "scheduler": dispatch_s,
}
"""Work side by side: the slowest decides."""


def estimate(s: Setup) -> dict[str, float | str]:
    """Seconds of each resource and of the whole, and which of them is the limit."""
    beside = {name: resource(s) for name, resource in BESIDE.items()}
    limit = max(beside, key=lambda name: beside[name])
    alone = {"listing": listing_s(s), "planning": planning_s(s), "manifest": manifest_s(s)}
    driver = sum(alone.values())
    seconds = {
        **beside,
        **alone,
        "start": s.start_s,
        "building": beside[limit],
        "driver": driver,
        "whole": s.start_s + beside[limit] + driver,
        "nothing_to_do": driver + standing_s(s),
    }
    return {name: round(value, 2) for name, value in seconds.items()} | {"limit": limit}
