"""From clips to a verified shard set: counts, identity, reuse, kills, budgets, damage."""

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from data_prep import storage
from data_prep.catalog import Catalog, Clip, ExcludedClip, read_folder, read_vggsound
from data_prep.catalog.splits import shard_of
from data_prep.media.quality import Filters
from data_prep.media.sample import MediaSettings
from data_prep.shards import build as building
from data_prep.shards import records
from data_prep.shards.build import build, build_shards
from data_prep.shards.manifest import (
    INDEX_SCHEMA,
    WRITTEN,
    load_index,
    load_manifest,
    picture_place,
)
from data_prep.shards.plan import BuildSettings, choose_shard_count, plan
from data_prep.shards.publish import publish_manifest, read_manifest_bytes
from data_prep.shards.verify import verify
from tests.data_prep.builds import BROKEN, SETTINGS, catalog_of, files_of
from tests.data_prep.reading import read_shard


def test_plan_is_a_partition_that_keeps_videos_together(world):
    clips = catalog_of(world).clips
    for shard_count in (1, 2, 7, 100):
        shards = plan(clips, shard_count)
        assert plan(clips[::-1], shard_count) == shards
        assert sorted(c.key for s in shards for c in s.clips) == sorted(c.key for c in clips)
        assert all(shard_of(c.youtube_id, shard_count) == s.index for s in shards for c in s.clips)
    with pytest.raises(ValueError, match="in the catalog twice"):
        plan([clips[0], clips[0]], 3)


def test_a_new_row_changes_one_shard(world):
    clips = catalog_of(world).clips
    before, after = plan(clips[1:], 7), plan(clips, 7)
    known = {shard.index: shard for shard in before}
    assert sum(known.get(shard.index) != shard for shard in after) == 1


def test_every_clip_is_accounted_for(world, tmp_path):
    out = str(tmp_path / "out")
    manifest = build(catalog_of(world), SETTINGS, out)
    counts = manifest.counts
    assert (counts.read, counts.written, counts.with_sound) == (18, 15, 14)
    assert counts.rejected == {"missing": 1, "too_short": 1, "undecodable": 1}
    assert load_manifest(out) == manifest
    assert load_manifest(out).digest == manifest.digest
    assert verify(out) == manifest

    table = load_index(out, manifest)
    assert table.schema.equals(INDEX_SCHEMA)
    rows = table.to_pylist()
    assert [row["key"] for row in rows] == sorted(clip.key for clip in catalog_of(world).clips)
    rejected = [row for row in rows if row["fate"] != "written"]
    assert {(row["youtube_id"], row["fate"]) for row in rejected} == set(BROKEN)
    assert all(row["detail"] for row in rejected)
    assert {row["label"] for row in rows} == {"dog, barking", "cat"}
    written = [row for row in rows if row["fate"] == "written"]
    assert all(len(row["picture_sizes"]) == 2 for row in written)
    assert all(row["requested_s"] == pytest.approx([0.3, 0.9]) for row in written)
    assert all((row["width"], row["height"]) == (43, 32) for row in written)
    assert all(bool(row["sound_size"]) == row["has_sound"] for row in written)
    assert {row["sound_fate"] for row in written if not row["has_sound"]} == {"absent"}


def test_the_index_leads_to_each_samples_bytes(world, tmp_path):
    manifest = build(catalog_of(world), SETTINGS, str(tmp_path))
    rows = load_index(str(tmp_path), manifest).to_pylist()
    for entry in manifest.shards:
        samples = {k: (p, s) for k, p, s in read_shard(tmp_path / "shards", entry.name)}
        mine = [row for row in rows if row["shard"] == entry.name]
        assert sorted(samples) == sorted(row["key"] for row in mine)
        for row in mine:
            place = picture_place(str(tmp_path), entry.name)
            spans = zip(row["picture_offsets"], row["picture_sizes"], strict=True)
            assert [storage.read_range(place, *span) for span in spans] == samples[row["key"]][0]
            sound = storage.join(str(tmp_path), "shards", f"{entry.name}.sound.tar")
            content = storage.read_range(sound, row["sound_offset"], row["sound_size"])
            assert content == samples[row["key"]][1]


def test_two_builds_are_byte_identical_in_any_order(world, tmp_path):
    catalog = catalog_of(world)
    build(catalog, SETTINGS, str(tmp_path / "one"))
    two = str(tmp_path / "two")
    backwards = [*build_shards(plan(catalog.clips[::-1], 3)[::-1], SETTINGS, two)]
    mixed = Catalog(clips=catalog.clips[::-1], leaks=())
    publish_manifest(mixed, backwards, SETTINGS, two, expected=None)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert not list((tmp_path / "one").rglob(".*"))


def rebuilt(
    catalog: Catalog, settings: BuildSettings, out: Path, shard_count: int = 3
) -> list[int]:
    """Numbers of the shards whose clips a build decoded."""
    decoded: list[int] = []
    real = building._samples

    def recorded(planned, *others):
        decoded.append(planned.index)
        return real(planned, *others)

    settings = dataclasses.replace(settings, shards=shard_count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "_samples", recorded)
        build(catalog, settings, str(out))
    return sorted(decoded)


def clips_with(catalog: Catalog, key: str, **changes: object) -> Catalog:
    clips = (dataclasses.replace(c, **changes) if c.key == key else c for c in catalog.clips)
    return dataclasses.replace(catalog, clips=tuple(clips))


def test_a_second_build_makes_only_changed_shards(world, tmp_path):
    catalog = catalog_of(world)
    assert rebuilt(catalog, SETTINGS, tmp_path) == [0, 1, 2]
    before = files_of(tmp_path)
    assert rebuilt(catalog, SETTINGS, tmp_path) == []
    assert files_of(tmp_path) == before

    relabelled = [dataclasses.replace(c, label="x", split="train") for c in catalog.clips]
    assert rebuilt(Catalog(clips=tuple(relabelled), leaks=()), SETTINGS, tmp_path) == []
    assert {row["label"] for row in load_index_rows(tmp_path)} == {"x"}

    first = catalog.clips[0]
    repaired = clips_with(catalog, first.key, uri=catalog.clips[4].uri, stamp="1:2")
    assert rebuilt(repaired, SETTINGS, tmp_path) == [shard_of(first.youtube_id, 3)]
    other = dataclasses.replace(SETTINGS, media=MediaSettings(size_px=48, pictures=2))
    assert rebuilt(catalog, other, tmp_path) == [0, 1, 2]
    verify(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "again"),
    [
        ({}, False),
        ({"motion": 0.0}, True),
        ({"fate": "too_long", "detail": "712.0 s"}, True),
        ({"fate": "undecodable", "detail": "cut off at 10.03 of 12.00 s"}, True),
        ({"sound_fate": "silent"}, True),
    ],
)
def test_shards_that_an_earlier_version_may_have_decoded_wrongly_are_rebuilt(
    world, tmp_path, change, again
):
    catalog = catalog_of(world)
    build(catalog, SETTINGS, str(tmp_path))
    shards = plan(catalog.clips, 3)
    for version in (1, 2):
        for shard in shards:
            record = records.load(shard.index, str(tmp_path))
            rows = tuple(
                dataclasses.replace(row, **change) if row.fate == WRITTEN else row
                for row in record.rows
            )
            earlier = dataclasses.replace(record, rows=rows, decoding=version)
            valid = records.is_valid(earlier, shard, SETTINGS)
            assert valid == (version == 2 or not (again and rows != record.rows))


def test_another_version_of_schema_or_library_rebuilds_all(world, tmp_path, monkeypatch):
    catalog = catalog_of(world)
    build(catalog, SETTINGS, str(tmp_path))
    monkeypatch.setattr(records, "SCHEMA_VERSION", 99)
    shards = plan(catalog.clips, 3)
    assert records.find_reusable(shards, SETTINGS, str(tmp_path)) == {}
    monkeypatch.undo()
    assert len(records.find_reusable(shards, SETTINGS, str(tmp_path))) == 3
    monkeypatch.setattr(records, "versions", lambda: {"av": "99"})
    assert records.find_reusable(shards, SETTINGS, str(tmp_path)) == {}


def test_a_copied_data_set_is_read_but_not_rebuilt(world, tmp_path):
    """Other time stamps, same content: only the records change."""
    build(catalog_of(world), SETTINGS, str(tmp_path / "out"))
    before = files_of(tmp_path / "out")
    shutil.copytree(world / "clips", tmp_path / "clips", copy_function=shutil.copyfile)
    moved = catalog_of(world, str(tmp_path / "clips"))
    assert records.find_reusable(plan(moved.clips, 3), SETTINGS, str(tmp_path / "out")) == {}
    assert rebuilt(moved, SETTINGS, tmp_path / "out") == []
    assert files_of(tmp_path / "out") == before
    assert len(records.find_reusable(plan(moved.clips, 3), SETTINGS, str(tmp_path / "out"))) == 3


def test_a_filter_rebuilds_only_shards_in_which_a_clips_fate_changes(world, tmp_path):
    catalog = catalog_of(world)
    build(catalog, SETTINGS, str(tmp_path))
    silent = {c.youtube_id for c in catalog.clips if c.start_s % 8 == 7}
    strict = dataclasses.replace(
        SETTINGS, filters=Filters(require_sound=True), max_rejected_share=0.5
    )
    expected = sorted({shard_of(youtube_id, 3) for youtube_id in silent})
    assert expected != [0, 1, 2]
    assert rebuilt(catalog, strict, tmp_path) == expected
    assert rebuilt(catalog, SETTINGS, tmp_path) == expected


def test_clips_left_out_are_listed_and_change_only_their_shard(world, tmp_path):
    catalog = catalog_of(world)
    build(catalog, SETTINGS, str(tmp_path))
    gone = catalog.clips[2]
    fewer = Catalog(
        clips=tuple(clip for clip in catalog.clips if clip is not gone),
        excluded=(ExcludedClip(clip=gone, reason="excluded", detail="a title card"),),
        leaks=(),
    )
    assert rebuilt(fewer, SETTINGS, tmp_path) == [shard_of(gone.youtube_id, 3)]
    counts = verify(str(tmp_path)).counts
    assert (counts.read, counts.written, counts.rejected["excluded"]) == (18, 14, 1)
    (row,) = [row for row in load_index_rows(tmp_path) if row["key"] == gone.key]
    assert (row["fate"], row["detail"], row["shard"]) == ("excluded", "a title card", "")


def load_index_rows(out: Path) -> list[dict]:
    return load_index(str(out), load_manifest(str(out))).to_pylist()


def test_a_lost_or_truncated_tar_or_record_is_rebuilt(world, tmp_path):
    catalog = catalog_of(world)
    rebuilt(catalog, SETTINGS, tmp_path)
    before = files_of(tmp_path)
    first, second, third = load_manifest(str(tmp_path)).shards
    (tmp_path / "shards" / f"{first.name}.sound.tar").unlink()
    with (tmp_path / "shards" / f"{second.name}.picture.tar").open("r+b") as tar:
        tar.truncate(1000)
    (tmp_path / "records" / "shard-00002.json").write_text("{")
    assert rebuilt(catalog, SETTINGS, tmp_path) == [0, 1, 2]
    assert files_of(tmp_path) == before
    assert third.name in {shard.name for shard in load_manifest(str(tmp_path)).shards}


def test_the_number_of_shards_is_kept_between_builds(world, tmp_path):
    clips = catalog_of(world).clips
    free = BuildSettings(clips_per_shard=6)
    assert choose_shard_count(len(clips), free, str(tmp_path)) == 3
    assert choose_shard_count(1, free, str(tmp_path)) == 1
    build(catalog_of(world), SETTINGS, str(tmp_path))
    assert choose_shard_count(10_000, free, str(tmp_path)) == 3
    more = BuildSettings(shards=5)
    assert choose_shard_count(10_000, more, str(tmp_path)) == 5


def test_too_many_rejections_end_the_build_without_a_manifest(world, tmp_path):
    strict = dataclasses.replace(SETTINGS, max_rejected_share=0.1)
    with pytest.raises(ValueError, match=r"3 of 18 .*1 missing.*max_rejected_share"):
        build(catalog_of(world), strict, str(tmp_path))
    assert not (tmp_path / "manifest.json").exists()
    assert not list(tmp_path.glob("index-*"))
    build(catalog_of(world), SETTINGS, str(tmp_path))


def test_a_build_without_any_usable_clip_fails_at_any_budget(tmp_path):
    clip = Clip(key="a", youtube_id="a", start_s=0, label="", split="train", uri="/nowhere/a.mp4")
    settings = BuildSettings(max_rejected_share=1.0)
    with pytest.raises(ValueError, match="1 missing"):
        build(Catalog(clips=(clip,), leaks=()), settings, str(tmp_path))


def test_required_sound_rejects_silent_clips(world, tmp_path):
    settings = BuildSettings(
        media=MediaSettings(size_px=32),
        filters=Filters(require_sound=True),
        max_rejected_share=0.5,
    )
    counts = build(catalog_of(world), settings, str(tmp_path)).counts
    assert (counts.written, counts.rejected["no_sound"]) == (14, 1)


def test_loading_a_missing_or_damaged_manifest_raises(world, tmp_path):
    with pytest.raises(FileNotFoundError, match="aiaic prepare"):
        load_manifest(str(tmp_path))
    (tmp_path / "manifest.json").write_text('{"schema_version": 99}')
    with pytest.raises(ValueError, match="schema version 99"):
        load_manifest(str(tmp_path))
    for damaged in ("{", "[]", '{"schema_version": 2}'):
        (tmp_path / "manifest.json").write_text(damaged)
        with pytest.raises(ValueError, match="damaged"):
            load_manifest(str(tmp_path))


def test_of_two_simultaneous_builds_one_wins_and_the_other_raises(world, tmp_path):
    catalog, out = catalog_of(world), str(tmp_path)
    expected = read_manifest_bytes(out)
    mine = [*build_shards(plan(catalog.clips, 3), SETTINGS, out)]
    other = dataclasses.replace(SETTINGS, media=MediaSettings(size_px=48))
    winner = build(catalog, other, out)
    with pytest.raises(storage.ConflictError, match="another build has published"):
        publish_manifest(catalog, mine, SETTINGS, out, expected=expected)
    assert verify(out) == winner


def test_a_temporarily_unreadable_file_is_tried_again(world, tmp_path):
    """Remounting a folder changes neither sizes nor times."""
    clips, away = tmp_path / "clips", tmp_path / "away"
    shutil.copytree(world / "clips", clips)
    catalog = catalog_of(world, str(clips))
    clips.rename(away)
    with pytest.raises(ValueError, match="missing"):
        build(catalog, SETTINGS, str(tmp_path / "out"))
    away.rename(clips)
    assert build(catalog, SETTINGS, str(tmp_path / "out")).counts.written == 15


def test_the_digest_depends_on_the_data_and_not_on_the_budget(world, tmp_path):
    catalog = catalog_of(world)
    first = build(catalog, SETTINGS, str(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    looser = dataclasses.replace(SETTINGS, shards=None, max_rejected_share=0.9)
    assert build(catalog, looser, str(tmp_path)).digest == first.digest
    assert {path: path.stat().st_mtime_ns for path in before} == before


KILLED = """
import os
import signal
import sys
from data_prep.catalog import read_vggsound
from data_prep.media.sample import MediaSettings
from data_prep.shards import records
from data_prep.shards.build import build
from data_prep.shards.plan import BuildSettings
world, out = sys.argv[1:]
settings = BuildSettings(media=MediaSettings(size_px=32, pictures=2), shards=3)

def store_and_die(record, out, store=records.store):
    store(record, out)
    os.kill(os.getpid(), signal.SIGKILL)

records.store = store_and_die
if __name__ == "__main__":
    build(read_vggsound(world + "/vggsound.csv", world + "/clips"), settings, out)
"""


def test_a_killed_build_publishes_nothing_and_resumes(world, tmp_path):
    root = Path(__file__).parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(world), str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert process.wait(120) == -signal.SIGKILL
    assert list((tmp_path / "out" / "records").glob("*.json"))
    assert not (tmp_path / "out" / "manifest.json").exists()
    with pytest.raises(FileNotFoundError):
        verify(str(tmp_path / "out"))
    catalog = catalog_of(world)
    assert len(rebuilt(catalog, SETTINGS, tmp_path / "out")) < 3
    build(catalog, SETTINGS, str(tmp_path / "fresh"))
    finished = {k: v for k, v in files_of(tmp_path / "out").items() if not k.endswith(".part")}
    assert finished == files_of(tmp_path / "fresh")
    verify(str(tmp_path / "out"))


def test_a_storage_failure_ends_the_build_instead_of_rejecting_clips(world, tmp_path, monkeypatch):
    def fail(local_file, place):
        raise OSError("the network is down")

    monkeypatch.setattr(storage, "publish", fail)
    with pytest.raises(OSError, match="network is down"):
        build(catalog_of(world), SETTINGS, str(tmp_path))
    assert not (tmp_path / "manifest.json").exists()


def test_the_next_shard_is_decoded_while_one_is_uploaded(world, tmp_path, monkeypatch):
    decoding, real_samples, real_publish = threading.Event(), building._samples, storage.publish

    def samples(planned, *others):
        if planned.index == 1:
            decoding.set()
        return real_samples(planned, *others)

    def publish(local_file, place):
        if "shard-00000" in place:
            assert decoding.wait(120), "shard 1 waits for the upload of shard 0"
        real_publish(local_file, place)

    monkeypatch.setattr(building, "_samples", samples)
    monkeypatch.setattr(storage, "publish", publish)
    assert build(catalog_of(world), SETTINGS, str(tmp_path)).counts.written == 15


def test_a_full_scratch_disk_is_named(world, tmp_path, monkeypatch):
    def fill(samples, folder, name):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(building, "write_shard", fill)
    with pytest.raises(OSError, match=r"no space left .*TMPDIR"):
        build(catalog_of(world), SETTINGS, str(tmp_path))
    assert not (tmp_path / "manifest.json").exists()


def test_from_bucket_to_bucket(world, tmp_path, s3_place):
    storage.upload_folder(world / "clips", storage.join(s3_place, "clips"))
    catalog = catalog_of(world, storage.join(s3_place, "clips"))
    out = storage.join(s3_place, "out")
    manifest = build(catalog, SETTINGS, out)
    assert verify(out) == manifest == build(catalog_of(world), SETTINGS, str(tmp_path))
    assert len(records.find_reusable(plan(catalog.clips, 3), SETTINGS, out)) == 3


def test_a_plain_folder_of_clips(world, tmp_path):
    catalog = read_folder(str(world / "clips"))
    counts = build(catalog, SETTINGS, str(tmp_path)).counts
    assert (counts.read, counts.written) == (17, 15)


def test_the_eight_real_clips(shared, tmp_path):
    source = shared / "data" / "vggsound"
    catalog = read_vggsound(str(source / "vggsound.csv"), str(source / "clips"))
    settings = BuildSettings(media=MediaSettings(size_px=256))
    counts = build(catalog, settings, str(tmp_path)).counts
    assert (counts.written, counts.rejected, counts.with_sound) == (8, {}, 8)
    verify(str(tmp_path))
