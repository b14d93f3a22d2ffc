"""Clips to shards: catalogs, decoding, shard files and the manifest that vouches for them.

Knows no torch, no Ray and no model. What others build on:

- ``catalog``: annotations and a place of clips -> ``Catalog`` of ``Clip``
- ``build``: plan -> ``build_shard`` -> ``publish_manifest``
- ``manifest``: ``load_manifest``, ``load_index``, ``verify``
- ``storage``: one way to paths, ``file://`` and ``s3://``
"""
