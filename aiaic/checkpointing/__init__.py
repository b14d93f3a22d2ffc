"""Checkpoints: what they hold, where they are kept, and how they are written in the background."""
