"""Evaluation and shard reports: HTML pages, charts, and plain-text tables."""
