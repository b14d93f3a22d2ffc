"""Pages and tables for people: evaluation reports and the look at a shard set."""
