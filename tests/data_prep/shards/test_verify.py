"""Damage is named; pruning removes the files of earlier builds and nothing else."""

import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import pytest

from data_prep.media.sample import MediaSettings
from data_prep.media.wav import encode_wav
from data_prep.shards import build as building
from data_prep.shards import publish
from data_prep.shards.build import build
from data_prep.shards.verify import prune, superseded, verify
from tests.data_prep.builds import SETTINGS, catalog_of


def flip_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda out, tar: flip_byte(tar), "differs from its checksum"),
        (lambda out, tar: tar.unlink(), "is missing"),
        (lambda out, tar: tar.write_bytes(tar.read_bytes()[:-512]), "bytes, not"),
        (lambda out, tar: flip_byte(next(out.glob("index-*"))), "differs from its checksum"),
        (lambda out, tar: edit_manifest(out, ["counts", "written"], 14), "written"),
        (lambda out, tar: edit_manifest(out, ["counts", "read"], 19), "counts are"),
        (lambda out, tar: edit_manifest(out, ["shards", 0, "clips"], 99), "not 99"),
        (lambda out, tar: edit_manifest(out, ["shards"], []), "not listed"),
    ],
)
def test_verify_names_what_is_wrong(world, tmp_path, damage, complaint):
    manifest = build(catalog_of(world), SETTINGS, str(tmp_path))
    damage(tmp_path, tmp_path / "shards" / f"{manifest.shards[1].name}.picture.tar")
    with pytest.raises(ValueError, match=complaint):
        verify(str(tmp_path))


def edit_manifest(out: Path, keys: list, value: object) -> None:
    content = json.loads((out / "manifest.json").read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (out / "manifest.json").write_text(json.dumps(content))


def test_verify_names_a_sound_that_training_could_not_read(world, tmp_path, monkeypatch):
    other, real = encode_wav(np.zeros(9000, np.float32), 8000), building._samples

    def samples(*arguments):
        for sample in real(*arguments):
            yield dataclasses.replace(sample, sound=other if sample.sound else b"")

    monkeypatch.setattr(building, "_samples", samples)
    build(catalog_of(world), SETTINGS, str(tmp_path))
    with pytest.raises(ValueError, match=r"sound\.tar: \S+ is a sound that is not 16-bit mono WAV"):
        verify(str(tmp_path))


def test_verify_finds_an_index_that_claims_missing_sound(world, tmp_path, monkeypatch):
    real = publish._columns
    monkeypatch.setattr(
        publish, "_columns", lambda rows: real(rows) | {"has_sound": [True] * len(rows)}
    )
    build(catalog_of(world), SETTINGS, str(tmp_path))
    with pytest.raises(
        ValueError, match="has 0 bytes of sound in the index, and has_sound is True"
    ):
        verify(str(tmp_path))


def test_verify_finds_wrong_byte_ranges_in_the_index(world, tmp_path, monkeypatch):
    real = publish._columns

    def shifted(rows):
        columns = real(rows)
        columns["sound_offset"] = [offset + 512 for offset in columns["sound_offset"]]
        return columns

    monkeypatch.setattr(publish, "_columns", shifted)
    build(catalog_of(world), SETTINGS, str(tmp_path))
    with pytest.raises(ValueError, match="the index has"):
        verify(str(tmp_path))


def test_files_of_earlier_builds_are_kept_until_they_are_pruned(world, tmp_path):
    catalog, out = catalog_of(world), str(tmp_path)
    first = build(catalog, SETTINGS, out)
    assert superseded(out, first) == []
    time.sleep(0.01)
    second = build(catalog, dataclasses.replace(SETTINGS, media=MediaSettings(size_px=48)), out)
    old = {f"shards/{e.name}.{kind}.tar" for e in first.shards for kind in ("picture", "sound")}
    old.add(first.index.name)
    assert {file.name for file in superseded(out, second)} == old
    young = tmp_path / "shards" / "shard-00000-0123456789ab.sound.tar"
    young.write_bytes(b"of a running build")
    assert {file.name for file in prune(out, second)} == old
    assert verify(out) == second
    assert young.exists()
    assert not any((tmp_path / name).exists() for name in old)


def test_pruning_keeps_files_of_other_sets(world, tmp_path):
    catalog = catalog_of(world)
    build(catalog, SETTINGS, str(tmp_path / "nested"))
    (tmp_path / "mine.parquet").write_bytes(b"somebody's table")
    time.sleep(0.01)
    manifest = build(catalog, SETTINGS, str(tmp_path))
    assert prune(str(tmp_path), manifest) == []
    verify(str(tmp_path / "nested"))
    assert (tmp_path / "mine.parquet").exists()


def test_a_tar_of_the_right_size_and_wrong_content_can_be_repaired(world, tmp_path):
    manifest = build(catalog_of(world), SETTINGS, str(tmp_path))
    tar = tmp_path / "shards" / f"{manifest.shards[1].name}.sound.tar"
    flip_byte(tar)
    with pytest.raises(ValueError, match=rf"{tar.name} differs.*Delete the files named here"):
        verify(str(tmp_path))
    tar.unlink()
    assert build(catalog_of(world), SETTINGS, str(tmp_path)) == manifest
    assert verify(str(tmp_path)) == manifest
