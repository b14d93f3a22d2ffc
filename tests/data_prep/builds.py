"""Settings and catalogs of test builds, and their files."""

from pathlib import Path

from data_prep.catalog import Catalog, read_vggsound
from data_prep.media.sample import MediaSettings
from data_prep.shards.plan import BuildSettings

SETTINGS = BuildSettings(media=MediaSettings(size_px=32, pictures=2), shards=3)
BROKEN = ("bbbbbbbbbbb", "missing"), ("ccccccccccc", "undecodable"), ("ddddddddddd", "too_short")


def catalog_of(world: Path, place: str | None = None) -> Catalog:
    return read_vggsound(str(world / "vggsound.csv"), place or str(world / "clips"))


def files_of(out: Path) -> dict[str, bytes]:
    """A set's files, except records, which contain the sources' time stamps."""
    files = (path for path in out.rglob("*") if path.is_file() and path.parent.name != "records")
    return {str(path.relative_to(out)): path.read_bytes() for path in files}
