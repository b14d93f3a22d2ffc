"""Tars that are not shards are rejected, and the error names them."""

import contextlib
import gzip
import hashlib
import io
import tarfile
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from data_prep import storage
from data_prep.catalog import Catalog
from data_prep.shards import manifest
from data_prep.shards.build import build
from data_prep.shards.plan import BuildSettings
from data_prep.shards.tar import read_pictures, read_sounds
from data_prep.shards.verify import verify
from tests.faults.media_files import clip_of


def tar(*members: tuple[str, bytes, dict[str, Any]], kind: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of members given by name, content and other attributes."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as target:
        for name, content, attributes in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for attribute, value in attributes.items():
                setattr(info, attribute, value)
            target.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return stream.getvalue()


def pax(records: dict[str, str], name: str = "a.0.jpg", content: bytes = b"evil") -> bytes:
    return tar((name, content, {"pax_headers": records}))


def claiming(size: int, *, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header that claims a member of this size, followed by four blocks."""
    info = tarfile.TarInfo("a.0.jpg")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(2048)


def sparse() -> bytes:
    """An old GNU sparse member that claims a hundred million bytes but stores only 512."""
    head = bytearray(tarfile.TarInfo("a.0.jpg").tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"%011o\0" % 512
    head[156:157] = b"S"
    head[386:410] = b"%011o\0" % 0 + b"%011o\0" % 512
    head[483:495] = b"%011o\0" % 100_000_000
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + bytes(512) + bytes(10240)


ONE = ("a.0.jpg", b"evil", {})
LINK = {"linkname": "/etc/passwd"}
TARS: dict[str, tuple[bytes, str]] = {
    "symbolic-link": (tar(("a.0.jpg", b"", LINK | {"type": tarfile.SYMTYPE})), "not a picture"),
    "hard-link": (tar(("a.0.jpg", b"", LINK | {"type": tarfile.LNKTYPE})), "not a picture"),
    "folder": (tar(("a.0.jpg", b"", {"type": tarfile.DIRTYPE})), "not a picture"),
    "device": (tar(("a.0.jpg", b"", {"type": tarfile.CHRTYPE})), "not a picture"),
    "pipe": (tar(("a.0.jpg", b"", {"type": tarfile.FIFOTYPE})), "not a picture"),
    "above": (tar(("../a.0.jpg", b"evil", {})), "not a picture"),
    "absolute": (tar(("/tmp/a.0.jpg", b"evil", {})), "not a picture"),
    "pickle": (tar(("a.pkl", b"evil", {})), "not a picture"),
    "sound": (tar(("a.wav", b"evil", {})), "not a picture"),
    "pth": (tar(("a.0.jpg.pth", b"evil", {})), "not a picture"),
    "doubled": (tar(ONE, ("b.0.jpg", b"good", {}), ONE), "twice"),
    "sparse": (sparse(), "not a picture"),
    "pax-sparse": (
        pax({"GNU.sparse.map": "0,1", "GNU.sparse.size": "100000000"}),
        "not a picture",
    ),
    "pax-sparse-nonsense": (
        pax({"GNU.sparse.map": "x,y", "GNU.sparse.size": "z"}),
        "not a complete",
    ),
    "pax-path-above": (pax({"path": "../../a.0.jpg"}), "not a picture"),
    "pax-path-absolute": (pax({"path": "/etc/a.0.jpg"}), "not a picture"),
    "pax-path-doubled": (tar(ONE, ("b.0.jpg", b"x", {"pax_headers": {"path": ONE[0]}})), "twice"),
    "1e12-bytes": (claiming(10**12), "too many"),
    "1e8-bytes": (claiming(10**8), "not a complete tar"),
    "less-than-no-bytes": (claiming(-512), "x.picture.tar"),
    "cut-in-a-member": (tar(("a.0.jpg", b"x" * 2000, {}))[:1500], "not a complete tar"),
    "cut-between-members": (tar(ONE, ("b.0.jpg", b"x", {}))[:1024], "end is missing"),
    "one-block-at-the-end": (tar(ONE)[:1536], "end is missing"),
    "damaged-header": (b"x" + tar(ONE)[1:], "not a complete tar"),
    "gzip": (gzip.compress(tar(ONE)), "not a complete tar"),
    "empty": (b"", "not a complete tar"),
}


@pytest.mark.parametrize("name", TARS)
def test_a_hostile_tar_is_rejected_by_name(name):
    content, complaint = TARS[name]
    with pytest.raises(ValueError, match=complaint) as raised:
        list(read_pictures(io.BytesIO(content), "x.picture.tar"))
    assert "x.picture.tar" in str(raised.value)
    if name != "sound":
        with pytest.raises(ValueError, match=r"x\.sound\.tar"):
            list(read_sounds(io.BytesIO(content), "x.sound.tar"))


def test_damaged_tars_raise_only_value_errors():
    whole = tar(*((f"{'k' * 120}{number}.0.jpg", b"x" * 700, {}) for number in range(4)))
    rejected = 0
    for seed in range(300):
        generator = np.random.default_rng(seed)
        content = bytearray(whole)
        for place in generator.integers(0, len(content), 6):
            content[place] = generator.integers(256)
        with contextlib.suppress(ValueError):
            assert len(list(read_pictures(io.BytesIO(content), "x.picture.tar"))) == 4
            continue
        with pytest.raises(ValueError, match=r"x\.picture\.tar"):
            list(read_pictures(io.BytesIO(content), "x.picture.tar"))
        rejected += 1
    assert rejected > 50


def test_verify_names_a_hostile_tar(make_clip, tmp_path):
    """Even if its checksum matches the manifest."""
    path = make_clip(tmp_path / "clips" / "a.mp4", seconds=1.0)
    made = build(
        Catalog(clips=(clip_of(path),), leaks=()), BuildSettings(shards=1), str(tmp_path / "out")
    )
    (entry,) = made.shards
    evil = tar(("../a.0.jpg", b"evil", {}))
    place = manifest.picture_place(str(tmp_path / "out"), entry.name)
    storage.write_bytes(place, evil)
    record = replace(entry.picture, bytes=len(evil), sha256=hashlib.sha256(evil).hexdigest())
    forged = replace(made, shards=(replace(entry, picture=record),))
    storage.write_bytes(str(tmp_path / "out" / "manifest.json"), forged.to_bytes())
    with pytest.raises(ValueError, match=r"member '\.\./a\.0\.jpg' is not a picture"):
        verify(str(tmp_path / "out"))
    assert not (tmp_path / "a.0.jpg").exists()
