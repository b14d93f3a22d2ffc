"""Networks: tensors in, tensors out; no device, rank, file, logger or global random state."""
