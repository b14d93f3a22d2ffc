"""Networks take and return tensors: no device, rank, file, logger or global random state."""
