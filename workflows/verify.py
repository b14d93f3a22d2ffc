"""``aiaic verify``: a shard set against its manifest."""

from typing import Any

from data_prep import manifest
from data_prep.manifest import Manifest
from workflows.commands import Outcome, Verify


def run(options: Verify) -> Outcome:
    """Carry out the command."""
    verified = manifest.verify(options.shards)
    return Outcome(
        values={"shards": options.shards} | counts(verified),
        text=f"{options.shards} is whole: {in_words(verified)}",
    )


def counts(built: Manifest) -> dict[str, Any]:
    """What a shard set holds, as JSON values."""
    return {
        "digest": built.digest,
        "shard_files": len(built.shards),
        "read": built.counts.read,
        "written": built.counts.written,
        "with_sound": built.counts.with_sound,
        "rejected": built.counts.rejected,
    }


def in_words(built: Manifest) -> str:
    """What a shard set holds, for a person."""
    of = built.counts
    reasons = "".join(f", {count} {reason}" for reason, count in of.rejected.items())
    return (
        f"{of.written} of {of.read} clips in {len(built.shards)} shards, "
        f"{of.with_sound} with sound, {sum(of.rejected.values())} rejected{reasons}"
    )
