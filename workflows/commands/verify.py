"""``aiaic verify``: a shard set against its manifest."""

from typing import Any

from data_prep.shards import verify
from data_prep.shards.manifest import Manifest
from data_prep.storage.places import StoredFile
from workflows.options import Outcome, Verify


def run(options: Verify) -> Outcome:
    """Carry out the command."""
    verified = verify.verify(options.shards)
    look = verify.prune if options.prune else verify.superseded
    old = look(options.shards, verified)
    return Outcome(
        values={
            "shards": options.shards,
            "superseded_files": len(old),
            "superseded_bytes": sum(file.size for file in old),
            "pruned": options.prune,
        }
        | counts(verified),
        text=f"{options.shards} is whole: {in_words(verified)}{_of(old, pruned=options.prune)}",
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


def _of(old: list[StoredFile], *, pruned: bool) -> str:
    if not old:
        return ""
    size = f"{len(old)} files of earlier builds ({sum(file.size for file in old) / 1e6:.1f} MB)"
    if pruned:
        return f"; {size} were deleted"
    return f"; {size} lie beside it: '--prune' deletes them, once no run reads them any more"
