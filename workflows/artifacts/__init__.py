"""What lies in storage beside shards: run folders, caches, pretrained weights."""
