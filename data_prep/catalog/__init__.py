"""Annotations and a folder of clips -> the catalog of the clips to read.

The folder of clips is listed once. A missing clip stays in the catalog with the address at which it
was expected and an empty stamp, so that it is counted and reported later. Clips that are left out
on purpose are listed with the reason.
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
