"""``aiaic verify``: checks a shard set against its manifest."""

from typing import Any

from data_prep.shards import verify
from data_prep.shards.manifest import Manifest
from data_prep.storage.listing import StoredFile
from workflows.options import Outcome, Verify


def run(options: Verify) -> Outcome:
    """Carry out the command."""
    verified = verify.verify(options.shards)
    find = verify.prune if options.prune else verify.superseded
    old = find(options.shards, verified)
    leftovers = _superseded(old, pruned=options.prune)
    return Outcome(
        values={
            "shards": options.shards,
            "superseded_files": len(old),
            "superseded_bytes": sum(file.size for file in old),
            "pruned": options.prune,
        }
        | counts(verified),
        text=f"{options.shards} is whole: {in_words(verified)}{leftovers}",
    )


def counts(built: Manifest) -> dict[str, Any]:
    """Contents of a shard set, as JSON values."""
    return {
        "digest": built.digest,
        "shard_files": len(built.shards),
        "read": built.counts.read,
        "written": built.counts.written,
        "with_sound": built.counts.with_sound,
        "rejected": built.counts.rejected,
    }


def in_words(built: Manifest) -> str:
    """Contents of a shard set, for a person."""
    counts = built.counts
    reasons = "".join(f", {count} {reason}" for reason, count in counts.rejected.items())
    return (
        f"{counts.written} of {counts.read} clips in {len(built.shards)} shards, "
        f"{counts.with_sound} with sound, {sum(counts.rejected.values())} rejected{reasons}"
    )


def _superseded(old: list[StoredFile], *, pruned: bool) -> str:
    if not old:
        return ""
    size = f"{len(old)} files of earlier builds ({sum(file.size for file in old) / 1e6:.1f} MB)"
    if pruned:
        return f"; {size} were deleted"
    return f"; {size} lie beside it: delete them by '--prune' once no run reads them any more"
