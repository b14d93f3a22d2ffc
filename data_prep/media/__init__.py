"""Decodes clips: a file -> a sample of pictures and sound, or a rejection with its reason."""
