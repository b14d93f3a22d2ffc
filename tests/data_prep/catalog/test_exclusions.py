"""Exclusion lists: their format and their effect on the catalog."""

import pytest

from data_prep.catalog import Catalog, Clip, ExcludedClip, read_folder, read_vggsound
from data_prep.catalog.exclusions import NO_REASON, encode_exclusions, exclude, read_exclusions


def write(tmp_path, text):
    path = tmp_path / "exclusions.csv"
    path.write_text(text)
    return str(path)


def clip(key, youtube_id, file):
    return Clip(
        key=key, youtube_id=youtube_id, start_s=0.0, label="x", split="train", uri=f"/clips/{file}"
    )


CATALOG = Catalog(
    clips=(
        clip("-a_000001", "-a", "-a_000001.mp4"),
        clip("-a_000009", "-a", "-a_000009.mp4"),
        clip("b_000001", "b", "b_1000_11000.mp4"),
        clip("c", "c", "c.mp4"),
        clip("c_000010", "c", "c_000010.mp4"),
    ),
    leaks=(),
)


@pytest.mark.parametrize("header", ["", "name,reason\n", "# ours\n\nName,Reason\r\n"])
def test_a_list_with_and_without_header_comments_and_reasons(tmp_path, header):
    text = f'{header}-a_000001,"muted, twice"\n# "off" , "\n \nb\nc, \n-a_000001,again\n'
    assert read_exclusions(write(tmp_path, text)) == {
        "-a_000001": "muted, twice",
        "b": NO_REASON,
        "c": NO_REASON,
    }


@pytest.mark.parametrize("row", ["a,b,c", ",grey", '"a,b'])
def test_a_malformed_row_is_named_by_file_and_line(tmp_path, row):
    path = write(tmp_path, f"name,reason\nx,y\n{row}\n")
    with pytest.raises(ValueError, match=r"exclusions\.csv:3"):
        read_exclusions(path)


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.csv"):
        read_exclusions(str(tmp_path / "no.csv"))


def test_a_written_list_can_be_read(tmp_path):
    reasons = [("-a", 'like "b", nearly'), ("b.mp4", "same file as c"), ("é", "x\ny")]
    content = encode_exclusions(reasons)
    assert content == encode_exclusions(reasons)
    assert read_exclusions(write(tmp_path, content.decode())) == dict(reasons)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("-a_000001", ["-a_000001"]),
        ("-a", ["-a_000001", "-a_000009"]),
        ("b_1000_11000.mp4", ["b_000001"]),
        ("c", ["c"]),  # a key means only that clip, not the video of that name
        ("stranger", []),
    ],
)
def test_a_name_is_a_key_a_video_or_a_file(name, keys):
    found = exclude(CATALOG, {name: "why"})
    assert [excluded.clip.key for excluded in found.excluded] == keys
    assert {(e.reason, e.detail) for e in found.excluded} <= {("excluded", "why")}
    assert [c for c in CATALOG.clips if c in found.clips] == list(found.clips)
    assert len(found.clips) + len(found.excluded) == len(CATALOG.clips)


def test_names_that_match_nothing_are_counted(caplog):
    caplog.set_level("INFO")
    exclude(CATALOG, {"-a": "", "nobody": "", "-a_000001": ""})
    assert "2 clips left out; 1 of 3 names match nothing" in caplog.text


def test_a_listed_leak_remains_a_leak(tmp_path):
    rows = "eeeeeeeeeee,1,dog,train\neeeeeeeeeee,9,dog,test\nfffffffffff,1,dog,train\n"
    (tmp_path / "rows.csv").write_text(rows)
    (tmp_path / "clips").mkdir()
    catalog = read_vggsound(str(tmp_path / "rows.csv"), str(tmp_path / "clips"))
    found = exclude(catalog, {"eeeeeeeeeee": "grey"})
    assert [(e.clip.key, e.reason) for e in found.excluded] == [
        ("eeeeeeeeeee_000001", "leak"),
        ("eeeeeeeeeee_000009", "excluded"),
    ]
    assert found.leaks == catalog.leaks


def test_a_list_that_leaves_no_clips_is_refused():
    with pytest.raises(ValueError, match="all 5 clips"):
        exclude(CATALOG, {"-a": "", "b": "", "c": "", "c_000010": ""})
    nothing = Catalog(clips=(), leaks=(), excluded=())
    assert exclude(nothing, {"a": ""}) == nothing


def test_a_file_name_matches_in_any_folder(tmp_path):
    for name in ["x/a b.mp4", "y/a b.mp4", "y/c.mp4"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = exclude(read_folder(str(tmp_path)), {"a b.mp4": "why"})
    assert [c.key for c in found.clips] == ["y%2Fc"]
    assert all(isinstance(e, ExcludedClip) for e in found.excluded)
