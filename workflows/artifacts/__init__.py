"""What is stored beside shards: run folders, caches, pretrained weights."""
