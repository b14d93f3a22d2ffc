"""``aiaic duplicates`` on real shards: what it lists, and that the list does what it is for."""

import json
import shutil

import av
import numpy as np
import pytest

from data_prep import catalog, storage
from data_prep.catalog import exclusions
from data_prep.media.sample import MediaSettings
from data_prep.shards import build
from workflows import cli

ROWS = (
    ("aaaaaaaaaaa", "train"),
    ("bbbbbbbbbbb", "train"),  # the file of a
    ("ccccccccccc", "test"),  # looks like a: another size, another compression
    ("ddddddddddd", "train"),
    ("eeeeeeeeeee", "train"),  # looks like d
    ("fffffffffff", "train"),  # black, as is g
    ("ggggggggggg", "train"),
)


def write_picture(path, picture, width, height, quality):
    """A silent clip of one picture, a second long."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("h264", rate=10, options={"crf": str(quality)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        for number in range(12):
            scaled = frame.reformat(width, height, interpolation="BICUBIC")
            scaled.pts = number
            container.mux(stream.encode(scaled))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Clips, their csv, and shards of all of them."""
    folder = tmp_path_factory.mktemp("repeats")
    clips = folder / "clips"
    clips.mkdir()
    scenes = np.random.default_rng(5).integers(0, 256, (2, 9, 12, 3)).astype(np.uint8)
    first, second = scenes.repeat(16, axis=1).repeat(16, axis=2)
    black = np.full_like(first, 3)
    for name, picture, size, quality in (
        ("a", first, (192, 144), 20),
        ("c", first, (128, 96), 30),
        ("d", second, (192, 144), 20),
        ("e", second, (176, 132), 28),
        ("f", black, (192, 144), 20),
        ("g", black, (160, 120), 20),
    ):
        write_picture(clips / f"{name * 11}_000000.mp4", picture, *size, quality)
    shutil.copy(clips / f"{'a' * 11}_000000.mp4", clips / f"{'b' * 11}_000000.mp4")
    (folder / "clips.csv").write_text("".join(f"{name},0,x,{split}\n" for name, split in ROWS))
    build_shards(folder)
    return folder


def build_shards(folder):
    found = catalog.read_vggsound(str(folder / "clips.csv"), str(folder / "clips"))
    settings = build.BuildSettings(
        media=MediaSettings(size_px=64), shards=2, max_rejected_share=0.9
    )
    build.build(found, settings, str(folder / "shards"))


def run(arguments, capsys):
    assert cli.main(["duplicates", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_duplicates_are_listed_and_left_out_by_the_list(world, tmp_path, capsys):
    build_shards(world)
    shards, out = str(world / "shards"), str(tmp_path / "list.csv")
    found = run(["--shards", shards, "--out", out], capsys)
    assert found == {
        "shards": shards,
        "out": out,
        "clips": 7,
        "left_out": 3,
        "listed_before": 0,
        "within_splits": {"exact": 0, "near": 1},
        "across_splits": {"exact": 0, "near": 2},
    }
    assert exclusions.read_exclusions(out) == {
        "aaaaaaaaaaa_000000": "duplicate: looks like ccccccccccc_000000 (test)",
        "bbbbbbbbbbb_000000": "duplicate: looks like ccccccccccc_000000 (test)",
        "eeeeeeeeeee_000000": "duplicate: looks like ddddddddddd_000000 (train)",
    }
    places = {"--clips": "clips", "--annotations": "clips.csv", "--out": "shards"}
    words = [word for flag, name in places.items() for word in (flag, str(world / name))]
    settings = ["--dataset", "vggsound", "--size-px", "64", "--workers", "0"]
    assert cli.main(["prepare", *words, *settings, "--max-rejected-share", "0.9",
                     "--exclude", out, "--json"]) == 0  # fmt: skip
    rebuilt = json.loads(capsys.readouterr().out)
    assert (rebuilt["written"], rebuilt["rejected"]) == (4, {"excluded": 3})
    before = exclusions.read_exclusions(out)
    again = run(["--shards", shards, "--out", out], capsys)
    assert (again["clips"], again["left_out"], again["listed_before"]) == (4, 0, 3)
    assert exclusions.read_exclusions(out) == before


def test_the_output_says_how_many_and_what_to_do(world, tmp_path, capsys):
    build_shards(world)
    out = tmp_path / "list.csv"
    out.write_text("x,once\nbbbbbbbbbbb_000000,mine\n")
    assert cli.main(["duplicates", "--shards", str(world / "shards"), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "3 of 7 clips repeat another: within splits 0 exactly and 1 nearly; "
        "across splits 0 exactly and 2 nearly",
        f"{out} lists them, and the 2 names that it listed before; "
        f"exclude them by 'aiaic prepare --exclude {out}'",
    ]
    listed = exclusions.read_exclusions(str(out))
    assert (listed["x"], listed["bbbbbbbbbbb_000000"]) == ("once", "mine")


def test_shards_and_list_in_a_bucket(world, s3_place, capsys, tmp_path):
    build_shards(world)
    shards, out = storage.join(s3_place, "shards"), storage.join(s3_place, "lists", "a.csv")
    storage.upload_folder(world / "shards", shards)
    found = run(["--shards", shards, "--out", out], capsys)
    assert found["left_out"] == 3
    assert len(exclusions.read_exclusions(out)) == 3
    assert cli.main(["inspect", "--shards", shards, "--out", str(tmp_path), "--samples", "2"]) == 0
    assert len(list((tmp_path / "samples").glob("*.jpg"))) == 2


@pytest.mark.parametrize(
    ("flag", "value", "named"),
    [
        ("--shards", "nowhere", "nowhere"),
        ("--max-distance", "17", "0 to 16"),
        ("--out", "ftp://h/x", "ftp://"),
    ],
)
def test_what_a_user_does_wrong_is_named(world, tmp_path, capsys, flag, value, named):
    options = {"--shards": str(world / "shards"), "--out": str(tmp_path / "list.csv")}
    words = [word for pair in (options | {flag: value}).items() for word in pair]
    assert cli.main(["duplicates", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert not (tmp_path / "list.csv").exists()


def test_a_damaged_picture_is_named(world, tmp_path, capsys):
    build_shards(world)
    damaged = tmp_path / "shards"
    shutil.copytree(world / "shards", damaged)
    for tar in (damaged / "shards").glob("*.picture.tar"):
        tar.write_bytes(tar.read_bytes().replace(b"\xff\xd8\xff", b"\0\0\0"))
    arguments = ["--shards", str(damaged), "--out", str(tmp_path / "list.csv")]
    assert cli.main(["duplicates", *arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "_000000 cannot be read" in line
    assert "aiaic verify" in line
