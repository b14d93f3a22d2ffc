"""Annotations and a place of clips -> the clips to read.

The place of clips is listed once. A clip that is not there stays in the catalog, with the address
at which it was expected and an empty stamp, so that it is counted and named later; a clip that is
left out on purpose is listed with the reason, for the same end.
"""

from data_prep.catalog.ave import read_ave
from data_prep.catalog.folder import read_folder
from data_prep.catalog.rows import VIDEO_SUFFIXES, Catalog, Clip, ExcludedClip, safe_key
from data_prep.catalog.vggsound import read_vggsound

__all__ = [
    "VIDEO_SUFFIXES",
    "Catalog",
    "Clip",
    "ExcludedClip",
    "read_ave",
    "read_folder",
    "read_vggsound",
    "safe_key",
]
