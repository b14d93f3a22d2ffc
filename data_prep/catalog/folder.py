"""A folder or bucket of clips without annotations."""

import re
from collections import Counter

from data_prep import storage
from data_prep.catalog.rows import VIDEO_SUFFIXES, Catalog, Clip, finish, safe_key
from data_prep.catalog.splits import SPLITS

_NAMED_BY_START = re.compile(r"(.+)_(\d{6})")


def read_folder(clips_place: str, *, drop_leaks: bool = True) -> Catalog:
    """Catalog of every video file under a place.

    The label is the name of the file's folder (empty at the top). The split is the name of the
    first folder if that is train, val or test, else ``train``. The video's id is the file's name
    without suffix and ``_<start:06d>``, so that clips of one video stay together: files of one
    video in two splits are a leak.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it contains no clips, or two with the same key.
    """
    clips: list[Clip] = []
    for file in storage.list_files(clips_place):
        *folders, name = file.name.split("/")
        stem, dot, suffix = name.rpartition(".")
        if not dot or f".{suffix.lower()}" not in VIDEO_SUFFIXES:
            continue
        named = _NAMED_BY_START.fullmatch(stem)
        clips.append(
            Clip(
                key=safe_key("/".join([*folders, stem])),
                youtube_id=named[1] if named else stem,
                start_s=float(named[2]) if named else 0.0,
                label=folders[-1] if folders and folders[-1] not in SPLITS else "",
                split=folders[0] if folders and folders[0] in SPLITS else "train",
                uri=file.uri,
                stamp=file.stamp,
            )
        )
    if not clips:
        endings = ", ".join(VIDEO_SUFFIXES)
        raise ValueError(f"no clips under {clips_place}: no file ends in {endings}")
    twice = [key for key, n in Counter(clip.key for clip in clips).items() if n > 1]
    if twice:
        raise ValueError(f"{clips_place}: several files are named {twice[0]}.*; rename all but one")
    return finish(clips, clips_place, drop_leaks=drop_leaks)
