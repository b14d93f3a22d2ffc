"""Catalogs of generated annotations, and of the official ones if available."""

import csv
import shutil
from collections import Counter
from pathlib import Path

import pytest

from data_prep import storage
from data_prep.catalog import VIDEO_SUFFIXES, read_ave, read_folder, read_vggsound, safe_key


@pytest.fixture
def clips(tmp_path):
    """Files that a catalog lists but does not open."""
    folder = tmp_path / "clips"
    for name in [
        "-Aaaaaaaaaa_000034.mp4",
        "b_b_bbbbbbb_5000_15000.mp4",
        "ccccccccccc.mp4",
        "notes.txt",
        ".hidden.mp4",
    ]:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"0" * 10)
    return str(folder)


def write(tmp_path: Path, name: str, text: str) -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_vggsound_under_both_naming_schemes_with_quoted_labels(tmp_path, clips):
    rows = '-Aaaaaaaaaa,34,"dog, barking",test\n\nb_b_bbbbbbb,5,people,train\nddddddddddd,1,x,val\n'
    catalog = read_vggsound(write(tmp_path, "vggsound.csv", rows), clips)
    first, second, third = catalog.clips
    assert (first.key, first.youtube_id, first.start_s) == (
        "-Aaaaaaaaaa_000034",
        "-Aaaaaaaaaa",
        34.0,
    )
    assert (first.label, first.split, first.event_end_s) == ("dog, barking", "test", None)
    assert first.stamp.startswith("10:")
    assert second.uri.endswith("b_b_bbbbbbb_5000_15000.mp4")
    assert (third.stamp, Path(third.uri).name) == ("", "ddddddddddd_000001.mp4")
    assert catalog.leaks == ()


@pytest.mark.parametrize("name", ["_000034.webm", "_000034.MP4", "_34.mp4", "_34000_44000.mkv"])
def test_vggsound_files_may_have_any_suffix_and_plain_seconds(tmp_path, name):
    path = tmp_path / "clips" / "sub" / f"eeeeeeeeeee{name}"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"0")
    for rows in ("eeeeeeeeeee,34,x,test\n", f"eeeeeeeeeee_34{path.suffix},x\n"):
        annotations = write(tmp_path, "test.csv", rows)
        (clip,) = read_vggsound(annotations, str(tmp_path / "clips")).clips
        assert (clip.key, Path(clip.uri)) == ("eeeeeeeeeee_000034", path)
        assert clip.stamp


def test_ave_files_may_have_any_suffix(tmp_path):
    path = tmp_path / "clips" / "eeeeeeeeeee.WebM"
    path.parent.mkdir()
    path.write_bytes(b"0")
    annotations = write(tmp_path, "Annotations.txt", "Bus&eeeeeeeeeee&good&0&9\n")
    (clip,) = read_ave(annotations, [], str(tmp_path / "clips")).clips
    assert Path(clip.uri) == path


@pytest.mark.parametrize(
    "header", ["youtube_id,start_seconds,label,split", "# YouTube ID,start,label,train/test split"]
)
def test_a_header_in_vggsounds_csv_is_skipped(tmp_path, clips, header):
    rows = f"{header}\n-Aaaaaaaaaa,34,dog,test\n"
    assert len(read_vggsound(write(tmp_path, "vggsound.csv", rows), clips).clips) == 1
    again = write(tmp_path, "vggsound.csv", f"-Aaaaaaaaaa,34,dog,test\n{header}\n")
    with pytest.raises(ValueError, match=r"vggsound\.csv:2"):
        read_vggsound(again, clips)


@pytest.mark.parametrize(("name", "split"), [("test.csv", "test"), ("train.csv", "train")])
def test_vggsound_two_column_form_takes_its_split_from_the_name(tmp_path, clips, name, split):
    text = '-Aaaaaaaaaa_000034.mp4,"dog, barking"\n'
    (clip,) = read_vggsound(write(tmp_path, name, text), clips).clips
    assert (clip.key, clip.label, clip.split) == ("-Aaaaaaaaaa_000034", "dog, barking", split)
    assert clip.stamp


def test_a_file_name_with_two_splits_determines_none(tmp_path, clips):
    path = write(tmp_path, "train_and_test.csv", "-Aaaaaaaaaa_000034.mp4,dog\n")
    with pytest.raises(ValueError, match="'train or test' is none of"):
        read_vggsound(path, clips)
    path = write(tmp_path, "train_and_test.csv", "-Aaaaaaaaaa,34,dog,val\n")
    assert read_vggsound(path, clips).clips[0].split == "val"


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("abcdefghijk,12,dog", "3 fields"),
        ("abcdefghijk,soon,dog,test", "whole number"),
        ("abcdefghijk,-3,dog,test", "whole number"),
        ("abcdefghijk,1.5,dog,test", "whole number"),
        ("abcdefghijk,12,dog,tset", "none of train"),
        ("abcdefghijk,12,,test", "label is empty"),
        ("../etc/pass,12,dog,test", "not a YouTube id"),
        ("abcdefghijk.mp4,dog", "whole number"),
        ('abcdefghijk,12,"dog,test', "end of data"),
        ("fffffffffff,1,cat,test", "line 1"),
        ("fffffffffff,1,dog,train", "line 1"),
    ],
)
def test_a_malformed_vggsound_row_is_named_by_file_and_line(tmp_path, clips, row, complaint):
    path = write(tmp_path, "rows.csv", f"fffffffffff,1,dog,test\n{row}\n")
    with pytest.raises(ValueError, match=complaint) as failure:
        read_vggsound(path, clips)
    assert f"{path}:2" in str(failure.value)


def test_an_identical_repeated_row_counts_once(tmp_path, clips, caplog):
    path = write(tmp_path, "rows.csv", "fffffffffff,1,dog,test\n" * 2)
    assert len(read_vggsound(path, clips).clips) == 1
    assert "repeats line 1" in caplog.text


def test_missing_or_unreadable_annotations_and_folders_are_named(tmp_path, clips):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv"):
        read_vggsound(str(tmp_path / "nowhere.csv"), clips)
    path = write(tmp_path, "rows.csv", "fffffffffff,1,dog,test\n")
    with pytest.raises(FileNotFoundError, match="no-clips"):
        read_vggsound(path, str(tmp_path / "no-clips"))
    with pytest.raises(ValueError, match="no rows"):
        read_vggsound(write(tmp_path, "empty.csv", "\n"), clips)
    (tmp_path / "picture.csv").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match="UTF-8"):
        read_vggsound(str(tmp_path / "picture.csv"), clips)


def test_leaks_are_dropped_from_train_by_default(tmp_path, clips):
    rows = "eeeeeeeeeee,1,dog,train\neeeeeeeeeee,9,dog,test\nggggggggggg,1,cat,train\n"
    path = write(tmp_path, "rows.csv", rows)
    catalog = read_vggsound(path, clips)
    assert [clip.key for clip in catalog.clips] == ["eeeeeeeeeee_000009", "ggggggggggg_000001"]
    (left_out,) = catalog.excluded
    assert (left_out.clip.key, left_out.reason) == ("eeeeeeeeeee_000001", "leak")
    assert left_out.detail == "train clip of a video that test keeps"
    assert [leak.youtube_id for leak in catalog.leaks] == ["eeeeeeeeeee"]
    kept = read_vggsound(path, clips, drop_leaks=False)
    assert (len(kept.clips), kept.leaks, kept.excluded) == (3, catalog.leaks, ())


AVE_ROWS = (
    "Church bell&ccccccccccc&good&0&10\n"
    "Male speech&ccccccccccc&good&0&10\n"
    "Dog&ccccccccccc&good&2&2\n"
    "Cat&-hhhhhhhhhh&good&3&8\n"
)


@pytest.mark.parametrize("header", ["", "Category&VideoID&Quality&StartTime&EndTime\n"])
def test_each_ave_event_is_a_sample(tmp_path, clips, header):
    catalog = read_ave(write(tmp_path, "Annotations.txt", header + AVE_ROWS), [], clips)
    assert [clip.key for clip in catalog.clips] == [
        "ccccccccccc_000000_000010",
        "ccccccccccc_000000_000010-2",
        "ccccccccccc_000002_000002",
        "-hhhhhhhhhh_000003_000008",
    ]
    assert [clip.youtube_id for clip in catalog.clips[:3]] == ["ccccccccccc"] * 3
    last = catalog.clips[3]
    assert (last.event_start_s, last.event_end_s, last.split) == (3.0, 8.0, "train")
    assert catalog.clips[0].stamp
    assert not last.stamp


def test_ave_splits_are_by_event(tmp_path, clips):
    rows = AVE_ROWS.splitlines(keepends=True)
    annotations = write(tmp_path, "Annotations.txt", AVE_ROWS)
    train = write(tmp_path, "trainSet.txt", rows[0] + rows[3])
    test = write(tmp_path, "testSet.txt", rows[1])
    catalog = read_ave(annotations, [train, test], clips)
    assert [(clip.label, clip.split) for clip in catalog.clips] == [
        ("Male speech", "test"),
        ("Cat", "train"),
    ]
    assert [leak.youtube_id for leak in catalog.leaks] == ["ccccccccccc"]
    both = write(tmp_path, "valSet.txt", rows[0])
    with pytest.raises(ValueError, match=r"valSet\.txt:1.*train"):
        read_ave(annotations, [train, both], clips)
    with pytest.raises(ValueError, match="rename"):
        read_ave(annotations, [write(tmp_path, "some.txt", rows[0])], clips)
    stranger = write(tmp_path, "val.txt", "Dog&zzzzzzzzzzz&good&0&10\n")
    with pytest.raises(ValueError, match=r"val\.txt:1.*is not in"):
        read_ave(annotations, [stranger], clips)


@pytest.mark.parametrize("row", ["Dog&ccccccccccc&good&2", "Dog&cc cc&good&2&3", "&c&g&1&2"])
def test_a_malformed_ave_row_is_named_by_file_and_line(tmp_path, clips, row):
    path = write(tmp_path, "Annotations.txt", AVE_ROWS + row)
    with pytest.raises(ValueError, match=r"Annotations\.txt:5"):
        read_ave(path, [], clips)


def test_folder_takes_label_and_split_from_its_folders(tmp_path):
    for name in ["test/dog/a b.mp4", "cat/ééé_000010.MOV", "c.webm", "c.txt", "val/d.mkv"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"0")
    found = {clip.key: clip for clip in read_folder(str(tmp_path)).clips}
    assert set(found) == {"test%2Fdog%2Fa%20b", "cat%2F%C3%A9%C3%A9%C3%A9_000010", "c", "val%2Fd"}
    dog = found["test%2Fdog%2Fa%20b"]
    assert (dog.label, dog.split, dog.youtube_id) == ("dog", "test", "a b")
    cat = found["cat%2F%C3%A9%C3%A9%C3%A9_000010"]
    assert (cat.label, cat.split, cat.youtube_id, cat.start_s) == ("cat", "train", "ééé", 10.0)
    assert (found["val%2Fd"].label, found["val%2Fd"].split) == ("", "val")


def test_files_of_one_video_in_two_splits_of_a_folder_leak(tmp_path):
    for name in ["train/a_000001.mp4", "test/a_000030.mp4", "train/b_000001.mp4", "c/b.mp4"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    catalog = read_folder(str(tmp_path))
    assert [clip.key for clip in catalog.clips] == [
        "c%2Fb",
        "test%2Fa_000030",
        "train%2Fb_000001",
    ]
    assert [(e.clip.key, e.reason) for e in catalog.excluded] == [("train%2Fa_000001", "leak")]
    assert len(read_folder(str(tmp_path), drop_leaks=False).clips) == 4


def test_clips_in_a_bucket(s3_place):
    for name in ["-a/-Aaaaaaaaaa_000034.mp4", "b_b_bbbbbbb_5000_15000.mp4", "ccc.txt"]:
        storage.write_bytes(storage.join(s3_place, "clips", *name.split("/")), b"0" * 10)
    rows = b'-Aaaaaaaaaa,34,"dog, barking",test\nb_b_bbbbbbb,5,people,train\n'
    storage.write_bytes(storage.join(s3_place, "vggsound.csv"), rows)
    clips = storage.join(s3_place, "clips")
    found = read_vggsound(storage.join(s3_place, "vggsound.csv"), clips).clips
    assert [clip.stamp.partition(":")[0] for clip in found] == ["10", "10"]
    assert [storage.read_bytes(clip.uri) for clip in found] == [b"0" * 10] * 2
    assert [(clip.key, clip.label, clip.uri) for clip in read_folder(clips).clips] == [
        ("-a%2F-Aaaaaaaaaa_000034", "-a", found[0].uri),
        ("b_b_bbbbbbb_5000_15000", "", found[1].uri),
    ]


def test_a_folder_without_clips_or_with_two_of_one_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match=VIDEO_SUFFIXES[0]):
        read_folder(str(tmp_path))
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.webm").touch()
    with pytest.raises(ValueError, match=r"a\.\*"):
        read_folder(str(tmp_path))


def test_keys_are_safe_as_member_names():
    assert safe_key("a/b.c~d é%") == "a%2Fb%2Ec%7Ed%20%C3%A9%25"
    assert safe_key("-Qowmc0P9ic_000034") == "-Qowmc0P9ic_000034"


def test_official_vggsound_test_csv(shared, tmp_path):
    source = shared / "data" / "vggsound"
    catalog = read_vggsound(str(source / "test.csv"), str(source / "clips"))
    assert len(catalog.clips) == 15446
    assert len({clip.youtube_id for clip in catalog.clips}) == 14851
    assert len({clip.key for clip in catalog.clips}) == 15446
    with (source / "stat.csv").open(newline="") as stream:
        clips_of_label = {label: int(clips) for label, clips, _ in csv.reader(stream)}
    assert {clip.label for clip in catalog.clips} == set(clips_of_label)
    assert (len(clips_of_label), sum(clips_of_label.values())) == (309, 199176)
    per_label = Counter(clip.label for clip in catalog.clips)
    assert (min(per_label.values()), max(per_label.values())) == (49, 50)
    assert (catalog.leaks, catalog.excluded) == ((), ())
    assert {clip.split for clip in catalog.clips} == {"test"}
    there = [clip.key for clip in catalog.clips if clip.stamp]
    assert len(there) == len(list((source / "clips").glob("*.mp4"))) == 8


def test_official_ave(shared, tmp_path):
    source = shared / "data" / "ave"
    splits = [str(source / f"{name}Set.txt") for name in ("train", "val", "test")]
    annotations = str(source / "Annotations.txt")
    everything = read_ave(annotations, splits, str(tmp_path), drop_leaks=False)
    assert len(everything.clips) == 4143 == len({clip.key for clip in everything.clips})
    assert len({clip.youtube_id for clip in everything.clips}) == 4097
    assert len({clip.label for clip in everything.clips}) == 28
    dashed = {c.youtube_id for c in everything.clips if c.youtube_id.startswith("-")}
    assert len(dashed) == 1012
    assert sum(clip.event_end_s == clip.event_start_s for clip in everything.clips) == 1
    leaks = Counter(leak.splits for leak in everything.leaks)
    assert leaks == {("train", "val"): 10, ("train", "test"): 8}
    cleaned = read_ave(annotations, splits, str(tmp_path))
    split_of = {clip.youtube_id: clip.split for clip in cleaned.clips}
    assert all(split_of[leak.youtube_id] == leak.splits[-1] for leak in cleaned.leaks)
    assert len(cleaned.clips) + len(cleaned.excluded) == 4143
    assert Counter((e.clip.split, e.detail.split()[-2]) for e in cleaned.excluded) == {
        ("train", "val"): 10,
        ("train", "test"): 9,  # of 8 videos
    }
    events = Counter(clip.youtube_id for clip in everything.clips)
    assert Counter(events.values()) == {1: 4052, 2: 44, 3: 1}


def test_official_rows_of_the_real_clips(shared):
    source = shared / "data" / "vggsound"
    catalog = read_vggsound(str(source / "vggsound.csv"), str(source / "clips"))
    assert len(catalog.clips) == 8
    assert all(clip.stamp and clip.split == "test" for clip in catalog.clips)


def test_clips_in_subfolders_are_found_and_doubles_refused(tmp_path, clips):
    path = write(tmp_path, "rows.csv", "-Aaaaaaaaaa,34,dog,test\n")
    part = Path(clips) / "part2"
    part.mkdir()
    shutil.move(Path(clips) / "-Aaaaaaaaaa_000034.mp4", part)
    assert "part2" in read_vggsound(path, clips).clips[0].uri
    shutil.copy(part / "-Aaaaaaaaaa_000034.mp4", clips)
    with pytest.raises(ValueError, match="twice"):
        read_vggsound(path, clips)
