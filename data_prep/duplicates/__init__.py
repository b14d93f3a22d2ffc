"""Finds clips that repeat others, exactly or nearly."""
