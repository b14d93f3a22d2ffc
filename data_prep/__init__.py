"""Clips to shards: catalogs, decoding, shard files and the manifest that describes them.

Imports no torch, no Ray and no model.

- ``storage``: paths, ``file://`` and ``s3://`` behind one interface, with atomic publication
- ``catalog``: annotations and a folder of clips -> ``Catalog`` of ``Clip``
- ``media``: one clip's file -> a sample, or a rejection with its reason
- ``shards.plan``: catalog and settings -> the clips of each shard
- ``shards.build``: one planned shard -> its tars and its record
- ``shards.publish``: records -> manifest
- ``shards.manifest``: ``load_manifest``, ``load_index``; ``shards.verify``: ``verify``, ``prune``
- ``duplicates``: finds clips that repeat others
- ``synthetic``: makes a world with a known answer
"""
