"""Evaluation jobs: what is evaluated, on which clips, and what is measured. Knows no Ray."""
