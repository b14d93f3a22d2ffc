"""Clips that repeat others, exactly or nearly."""
