"""``aiaic inspect``: the page, the samples beside it, and its statistics."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
import soundfile

from data_prep import catalog
from data_prep.catalog import Catalog, Clip, ExcludedClip
from data_prep.catalog.splits import Leak
from data_prep.media.sample import MediaSettings
from data_prep.shards import build
from data_prep.shards.manifest import INDEX_SCHEMA, load_index, load_manifest
from workflows import cli
from workflows.commands import inspect
from workflows.report import shard_statistics

HOSTILE = "<script>alert('x')</script> \"&"


@pytest.fixture(scope="module")
def inspected(clips, tmp_path_factory):
    """Shards of a few clips with hostile labels, a broken and a missing clip, and a leak."""
    out = str(tmp_path_factory.mktemp("inspected"))
    files = sorted(clips.glob("*.mp4"))[:8]
    stamp = catalog.read_folder(str(clips)).clips[0].stamp

    def clip(number, **changes):
        values = {
            "key": files[number].stem,
            "youtube_id": files[number].stem[:11],
            "start_s": 0.0,
            "label": ("bell, church", HOSTILE)[number % 2],
            "split": ("train", "train", "val", "test")[number % 4],
            "uri": str(files[number]),
            "stamp": stamp,
        }
        return Clip(**values | changes)

    found = Catalog(
        clips=(
            *(clip(number) for number in range(8)),
            clip(0, key="gone-0", stamp=""),
            clip(0, key="x-1", uri=str(clips.parent / "clips.csv")),
        ),
        leaks=(Leak(youtube_id="leaky", splits=("train", "test")),),
        excluded=(ExcludedClip(clip=clip(1, key="leaky_000001"), reason="leak", detail=HOSTILE),),
    )
    settings = build.BuildSettings(
        media=MediaSettings(size_px=32, pictures=2), shards=2, max_rejected_share=0.9
    )
    build.build(found, settings, out)
    return out


class Page(HTMLParser):
    """The tags, links and text of a page."""

    VOID = frozenset({"meta", "img", "br", "link", "path", "use", "input"})

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.links, self.text = [], [], [], ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data):
        self.text += data


def written(folder):
    html = (folder / "index.html").read_text()
    return html, Page(html)


def test_the_page_shows_samples_with_their_sound(inspected, tmp_path, capsys):
    arguments = ["inspect", "--shards", inspected, "--out", str(tmp_path), "--samples", "6"]
    assert cli.main([*arguments, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    rejected = {"leak": 1, "missing": 1, "undecodable": 1}
    assert (values["read"], values["written"], values["samples"]) == (11, 8, 6)
    assert values["rejected"] == rejected
    assert values["page"] == str(tmp_path / "index.html")
    html, page = written(tmp_path)
    files = [link for link in page.links if not link.startswith("#")]
    assert sorted(files) == sorted(
        f"samples/{path.name}" for path in (tmp_path / "samples").iterdir()
    )
    assert len(files) == 6 * 3
    pictures = [link for link in files if link.endswith(".jpg")]
    shapes = {simplejpeg.decode_jpeg((tmp_path / p).read_bytes()).shape for p in pictures}
    assert shapes == {(32, 48, 3)}
    for sound in set(files) - set(pictures):
        samples, rate = soundfile.read(tmp_path / sound)
        assert rate == 16000
        assert 1.0 < len(samples) / rate < 1.3
        assert np.abs(samples).max() > 0.1
    assert page.tags.count("audio") == 6
    assert "8 clips in" in page.text
    for reason in rejected:
        assert f"<td>{reason}</td>" in html
    assert "clips.csv" not in page.text
    assert "gone-0" in page.text
    assert "media.pictures" in page.text


def test_annotations_are_escaped_and_nothing_is_fetched(inspected, tmp_path):
    assert cli.main(["inspect", "--shards", inspected, "--out", str(tmp_path)]) == 0
    html, page = written(tmp_path)
    assert "script" not in page.tags
    assert "<script" not in html
    assert page.text.count(HOSTILE) >= 5
    assert "leaky" in page.text
    assert not [link for link in page.links if ":" in link]
    assert "url(" not in re.sub(r"url\(#\w+\)", "", html)


def test_samples_are_drawn_by_seed_and_spread_over_labels(inspected):
    index = load_index(inspected, load_manifest(inspected))

    def keys(seed, limit):
        order = inspect._shuffled(index.column("key").to_pylist(), seed)
        return [(row["label"], row["key"]) for row in inspect.choose(index, order, limit)]

    assert keys(0, 4) == keys(0, 4) == sorted(keys(0, 4))
    assert len({tuple(keys(seed, 4)) for seed in range(5)}) > 1
    for seed in range(5):
        labels = [label for label, _ in keys(seed, 4)]
        assert labels.count(HOSTILE) == labels.count("bell, church") == 2
    assert len(keys(0, 100)) == 8


def test_a_second_page_leaves_no_old_samples(inspected, tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "mine.jpg").touch()
    for number in ("5", "2", "0"):
        arguments = ["--shards", inspected, "--out", str(tmp_path), "--samples", number]
        assert cli.main(["inspect", *arguments]) == 0
        _, page = written(tmp_path)
        names = {path.name for path in (tmp_path / "samples").iterdir()}
        assert names == {link.partition("/")[2] for link in page.links if "/" in link} | {
            "mine.jpg"
        }
        assert page.tags.count("article") == int(number)


@pytest.mark.parametrize(
    ("flag", "value", "named"),
    [
        ("--shards", "nowhere", "nowhere"),
        ("--samples", "-1", "--samples is -1"),
        ("--out", "s3://bucket/page", "not on the local file system"),
    ],
)
def test_errors_name_what_is_wrong(inspected, tmp_path, capsys, flag, value, named):
    options = {"--shards": inspected, "--out": str(tmp_path / "page")}
    words = [word for pair in (options | {flag: value}).items() for word in pair]
    assert cli.main(["inspect", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize(
    ("content", "suffix"), [(b"RIFF....", ".wav"), (b"fLaC....", ".flac"), (b"<html>", None)]
)
def test_the_type_of_a_sound_follows_from_its_first_bytes(content, suffix):
    if suffix is None:
        with pytest.raises(ValueError, match="sound of a is neither"):
            inspect._sound_suffix(content, "a")
    else:
        assert inspect._sound_suffix(content, "a") == suffix


def made_index(*rows):
    """An index with some columns filled, and the others empty."""
    plain = {"string": "", "double": 0.0, "int32": 0, "int64": 0, "bool": False}
    empty = {field.name: plain.get(str(field.type), []) for field in INDEX_SCHEMA}
    return pa.Table.from_pylist([empty | row for row in rows], schema=INDEX_SCHEMA)


def test_labels_are_counted_by_split_with_bars_to_scale():
    index = made_index(
        *({"label": "b", "split": "train", "fate": "written"} for _ in range(3)),
        {"label": "b", "split": "test", "fate": "written"},
        {"label": "a", "split": "train", "fate": "written"},
        {"label": "a", "split": "train", "fate": "missing"},
        {"label": "c", "split": "val", "fate": "grey"},
    )
    assert shard_statistics.label_rows(index) == [
        {"label": "b", "clips": 4, "rejected": 0, "splits": {"train": 3, "test": 1},
         "stops": [("train", 0.0, 75.0), ("test", 75.0, 100.0)]},
        {"label": "a", "clips": 1, "rejected": 1, "splits": {"train": 1},
         "stops": [("train", 0.0, 25.0)]},
        {"label": "c", "clips": 0, "rejected": 1, "splits": {}, "stops": []},
    ]  # fmt: skip


def test_splits_count_clips_videos_and_hours():
    index = made_index(
        {"split": "test", "youtube_id": "a", "fate": "written", "has_sound": True, "sound_s": 9.0},
        {"split": "train", "youtube_id": "b", "fate": "written", "has_sound": True, "sound_s": 1.8},
        {"split": "train", "youtube_id": "b", "fate": "written"},
        {"split": "val", "youtube_id": "c", "fate": "leak"},
    )
    train, test = shard_statistics.split_rows(index)
    assert train == pytest.approx(
        {"split": "train", "clips": 2, "videos": 1, "with_sound": 1, "hours": 0.0005}
    )
    assert (test["split"], test["hours"]) == ("test", 0.0025)


def test_rejections_have_examples_in_the_order_drawn():
    rows = [{"key": str(n), "fate": "missing", "detail": f"d{n}"} for n in range(6)]
    index = made_index(*rows, {"key": "w", "fate": "written"}, {"key": "g", "fate": "grey"})
    missing, grey = shard_statistics.rejection_rows(index, [7, 6, 5, 4, 3, 2, 1, 0])
    assert (missing["clips"], missing["share"]) == (6, 0.75)
    assert [row["key"] for row in missing["examples"]] == ["5", "4", "3", "2"]
    assert grey["examples"] == [{"key": "g", "detail": ""}]


def test_histograms_of_columns_with_values():
    index = made_index(
        {"fate": "written", "has_sound": True, "sound_s": 2.0, "rms_dbfs": -20.0, "motion": None,
         "requested_s": [1.0, 3.0], "actual_s": [1.0, 3.04], "picture_sizes": [1000, 3000]},
        {"fate": "written", "sound_s": 0.0, "motion": None, "requested_s": [5.0],
         "actual_s": [4.98], "picture_sizes": [2000]},
        {"fate": "missing", "motion": 7.0},
    )  # fmt: skip
    found = shard_statistics.histograms(index)
    assert "motion" not in found
    assert found["sound_s"].summary == "all values are 2"
    assert found["picture_bytes"].summary.startswith("median 2;")
    assert found["deviation_ms"].summary.endswith("range \N{MINUS SIGN}20 to 40")
    assert "currentColor" in found["rms_dbfs"].svg
    assert shard_statistics.histograms(made_index({"fate": "missing"})) == {}


def test_rare_frame_sizes_are_counted_together():
    rows = [
        {"fate": "written", "source_width": 100 + n, "source_height": 50, "width": 9, "height": 5}
        for n in range(10)
        for _ in range(12 - n)
    ]
    sizes = shard_statistics.frame_sizes(made_index(*rows))
    sizes = [(source.replace("\N{MULTIPLICATION SIGN}", "x"), *rest) for source, *rest in sizes]
    assert sizes[0] == ("100 x 50", 12, "9 \N{MULTIPLICATION SIGN} 5")
    assert sizes[-1] == ("2 others", 7, "")
    assert len(sizes) == 9
