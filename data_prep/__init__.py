"""Clips to shards: catalogs, decoding, shard files and the manifest that vouches for them.

Knows no torch, no Ray and no model. What others build on:

- ``catalog``: annotations and a place of clips -> ``Catalog`` of ``Clip``
- ``plan``: catalog and settings -> the clips of each shard
- ``build``: one planned shard -> its tars and its record; ``publication``: records -> manifest
- ``manifest``: ``load_manifest``, ``load_index``; ``verification``: ``verify``, ``prune``
- ``storage``: one way to paths, ``file://`` and ``s3://``
"""
