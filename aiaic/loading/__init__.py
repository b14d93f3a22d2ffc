"""Samples -> batches: which sample in which step, reading, decoding, augmentation."""
